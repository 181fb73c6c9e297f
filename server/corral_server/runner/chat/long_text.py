"""Tokens of texts that are far longer than the context: only the parts that truncation can keep are tokenized.

Tokenizing takes memory and time for every byte (llama.cpp holds tens of bytes for each, and a Python list 36 bytes a
token), so the length of a request must not decide on it.

Invariants:

- a text of up to ``16 * (context_length + 64)`` characters is tokenized as a whole;
- of a longer one, at most eight times the two ends that are needed, however many characters a token has;
- a text counts as longer than the context if and only if it is.

A part is tokenized with ``_MARGIN`` tokens more than are kept, because a cut changes the tokens beside it. Tokenizers
work word by word, so the tokens that are kept are those of the whole text, unless one word is longer than the margin.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.engine.generation import Engine

_MARGIN = 64
"""Tokens beside a cut that are not used."""
_CHARACTERS_PER_TOKEN = 8
"""First estimate, twice that of English text; most texts need one attempt."""


def tokenize_ends(engine: Engine, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
    """Return the tokens of the text; of a text that exceeds the context its first and last ``context_length`` tokens.

    Truncation (``engine.context_shift``) of both gives the same prompt.
    """
    count = engine.context_length
    size = (count + _MARGIN) * _CHARACTERS_PER_TOKEN
    while 2 * size < len(text):
        first = engine.tokenize(text[:size], add_special=add_special, parse_special=parse_special)
        if len(first) >= count + _MARGIN:
            last = engine.tokenize(text[-size:], add_special=add_special, parse_special=parse_special)
            if len(last) >= count + _MARGIN:
                return first[:count] + last[-count:]
        size *= 4
    return engine.tokenize(text, add_special=add_special, parse_special=parse_special)


def beginning(engine: Engine, text: str, tokens: int) -> str:
    """Return a beginning of the text that has more than the given number of tokens, or the whole text."""
    size = (tokens + _MARGIN) * _CHARACTERS_PER_TOKEN
    while 2 * size < len(text):
        part = engine.tokenize(text[:size], add_special=False, parse_special=True)
        if len(part) >= tokens + _MARGIN:
            return text[:size]
        size *= 4
    return text


def keep_ends(tokens: Sequence[int], count: int) -> Sequence[int]:
    """Return the first and the last ``count`` tokens, or all when there are no more."""
    return tokens if len(tokens) <= 2 * count else (*tokens[:count], *tokens[-count:])
