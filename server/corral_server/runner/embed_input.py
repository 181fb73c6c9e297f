"""A text to be embedded as tokens, cut where it is longer than the model can read."""

from __future__ import annotations

from dataclasses import dataclass

from corral_server.runner.embedding import TOO_LONG
from corral_server.runner.generation import Engine
from corral_server.wire.errors import ApiError

NOTHING_LEFT = "input after truncation exceeds maximum context length"


@dataclass(frozen=True, slots=True)
class Limit:
    """``tokens`` of one input, its special ones counted; without ``truncate`` a longer one is refused."""

    tokens: int
    truncate: bool = True


def tokens_of(engine: Engine, text: str, limit: Limit) -> list[int]:
    """With the special tokens that the model wants around a text, which a cut keeps. Raises ApiError 400."""
    tokens = engine.tokenize(text, add_special=True, parse_special=True)
    if len(tokens) <= limit.tokens:
        return tokens
    if not limit.truncate:
        raise ApiError(400, TOO_LONG)
    plain = engine.tokenize(text, add_special=False, parse_special=True)
    before, after = _around(tokens, plain)
    room = limit.tokens - len(before) - len(after)
    if room <= 0:
        raise ApiError(400, NOTHING_LEFT)
    return [*before, *plain[:room], *after]


def _around(tokens: list[int], plain: list[int]) -> tuple[list[int], list[int]]:
    """The special tokens before and after the text's own."""
    extra = len(tokens) - len(plain)
    start = next((at for at in range(extra + 1) if tokens[at : at + len(plain)] == plain), 0)
    return tokens[:start], tokens[start + len(plain) :]
