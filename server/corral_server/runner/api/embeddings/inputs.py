"""Tokenizing of texts to embed, with truncation to the model's context."""

from __future__ import annotations

from dataclasses import dataclass

from corral_server.runner.chat.long_text import beginning
from corral_server.runner.engine.embedding import TOO_LONG
from corral_server.runner.engine.generation import Engine
from corral_server.wire.errors import ApiError

NO_ROOM_ERROR = "input after truncation exceeds maximum context length"


@dataclass(frozen=True, slots=True)
class InputLimit:
    """Maximum ``tokens`` of one input, special tokens included. Without ``truncate`` a longer input is an error."""

    tokens: int
    truncate: bool = True


def tokenize_input(engine: Engine, text: str, limit: InputLimit) -> list[int]:
    """Tokenize one text with the model's special tokens around it; truncation keeps them. Raises ApiError 400."""
    text = beginning(engine, text, limit.tokens)
    tokens = engine.tokenize(text, add_special=True, parse_special=True)
    if len(tokens) <= limit.tokens:
        return tokens
    if not limit.truncate:
        raise ApiError(400, TOO_LONG)
    plain = engine.tokenize(text, add_special=False, parse_special=True)
    before, after = _special_tokens_around(tokens, plain)
    room = limit.tokens - len(before) - len(after)
    if room <= 0:
        raise ApiError(400, NO_ROOM_ERROR)
    return [*before, *plain[:room], *after]


def _special_tokens_around(tokens: list[int], plain: list[int]) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after the tokens of the text."""
    extra = len(tokens) - len(plain)
    start = next((at for at in range(extra + 1) if tokens[at : at + len(plain)] == plain), 0)
    return tokens[:start], tokens[start + len(plain) :]
