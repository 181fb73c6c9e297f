"""Prompt of a fill-in-the-middle request, from the model's FIM tokens.

It has the form of ``format_prompt_infill`` in llama.cpp's ``tools/server/server-common.cpp``, the pattern for
repositories of https://arxiv.org/pdf/2409.12186, section 3.2:

    [REPOSITORY]myproject [SEPARATOR]file 0 text 0 ... [SEPARATOR]filename [PREFIX]before prompt [SUFFIX]after [MIDDLE]

Differs: a part is kept for the output, so that the prompt always fits the context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corral_server.runner.chat.long_text import tokenize_ends
from corral_server.runner.engine.generation import Engine
from corral_server.wire.errors import ApiError

WINDOW = 2048
"""Tokens around the cursor at most: llama.cpp's default batch."""
MAX_OUTPUT_SHARE = 4
"""At most a quarter of the context is kept for the output."""

_FRAME = 8
"""More than the special tokens around the parts."""
_SNIPPET = "\n\n--- snippet ---\n\n"
_PROJECT, _FILE = "myproject\n", "filename\n"


@dataclass(frozen=True, slots=True)
class ExtraFile:
    """Text of another file that precedes the prompt."""

    text: str
    name: str = "tmp"


@dataclass(frozen=True, slots=True)
class Infill:
    """``prefix`` and ``suffix`` are the text around the middle, ``prompt`` the beginning of the middle."""

    prefix: str
    suffix: str
    prompt: str = ""
    extra: tuple[ExtraFile, ...] = ()


def check_infill(engine: Engine) -> None:
    """Raises ApiError 501 with llama.cpp's text for a model without FIM tokens."""
    special = engine.special_tokens
    named = {"prefix": special.fim_prefix, "suffix": special.fim_suffix, "middle": special.fim_middle}
    missing = "".join(f"{name} token is missing. " for name, token in named.items() if token < 0)
    if missing:
        raise ApiError(501, f"Infill is not supported by this model: {missing}")


def infill_tokens(engine: Engine, infill: Infill, *, output: int) -> list[int]:
    """Return the tokens of the prompt; ``output`` is the number of tokens to generate, -1 for no limit.

    The prefix takes three quarters of a window around the cursor, prompt and suffix the rest; the extra files take what
    the context has left. Of a part that is too long, what is nearest to the cursor is kept. CPU-bound.
    """
    special, context = engine.special_tokens, engine.context_length
    window = min(WINDOW, context // 2)
    prompt = _last(_tokens(engine, infill.prompt), window // 4)
    prefix = _last(_tokens(engine, infill.prefix), 3 * (window // 4))
    suffix = _tokens(engine, infill.suffix)[: window // 4 - len(prompt)]
    most = context // MAX_OUTPUT_SHARE
    room = context - window - (min(output, most) if output >= 0 else most) - _FRAME
    bos = [special.bos] * special.adds_bos
    before = [*_extra(engine, infill.extra, room), *bos, special.fim_prefix, *prefix, *prompt]
    return [*before, special.fim_suffix, *suffix, special.fim_middle]


def _extra(engine: Engine, files: Sequence[ExtraFile], room: int) -> list[int]:
    """Return the last ``room`` tokens of the extra files; those before them are not tokenized."""
    parts: list[list[int]] = []
    for part in _parts_backwards(engine, files):
        if room <= 0:
            break
        parts.append(_last(part, room))
        room -= len(parts[-1])
    return [token for part in reversed(parts) for token in part]


def _parts_backwards(engine: Engine, files: Sequence[ExtraFile]) -> Iterator[list[int]]:
    special = engine.special_tokens
    named = special.fim_separator >= 0
    if named:
        yield [special.fim_separator, *_tokens(engine, _FILE)]
    for file in reversed(files):
        yield _tokens(engine, file.text)
        yield [special.fim_separator, *_tokens(engine, f"{file.name}\n")] if named else _tokens(engine, _SNIPPET)
    if special.fim_repository >= 0:
        yield [special.fim_repository, *_tokens(engine, _PROJECT)]


def _tokens(engine: Engine, text: str) -> list[int]:
    """Tokenize, of a long text both ends. The names of special tokens in the text are plain text."""
    return tokenize_ends(engine, text, add_special=False, parse_special=False)


def _last(tokens: list[int], count: int) -> list[int]:
    return tokens[-count:] if count > 0 else []
