"""Prompt lookup: draft tokens for one generation out of its own prompt and text.

A text that repeats itself continues as it did before: after the last three or four tokens, the tokens that followed
them at their previous occurrence are the draft (llama.cpp's ``examples/lookup``, "prompt lookup decoding"). Drafting
pays only where accepted tokens are frequent, so a generation whose drafts are rejected pauses for a growing number of
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

_NGRAM_SIZES = (4, 3)
"""Tokens at the end of the text that must have occurred before; the longer match wins."""
_MIN_PAUSE, _MAX_PAUSE = 4, 64
"""Tokens without drafts after a rejected one."""


class PromptLookup:
    """N-gram index of one generation; ``max_tokens`` is the longest draft."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._length = max_tokens
        self._tokens: list[int] = []
        self._continuations: dict[tuple[int, ...], int] = {}
        """Index of the token that followed the n-gram at its last occurrence but the current one."""
        self._next_pause = _MIN_PAUSE
        self._pause_until = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """Append the newest tokens of prompt and text."""
        for token in tokens:
            end = len(self._tokens)
            for size in _NGRAM_SIZES:
                if end >= size:
                    self._continuations[tuple(self._tokens[end - size : end])] = end
            self._tokens.append(token)

    def draft(self) -> list[int]:
        """Return the expected continuation; empty without a previous occurrence and during a pause."""
        if len(self._tokens) < self._pause_until:
            return []
        for size in _NGRAM_SIZES:
            start = self._continuations.get(tuple(self._tokens[-size:]))
            if start is not None:
                return self._tokens[start : start + self._length]
        return []

    def record_result(self, drafted: int, accepted: int) -> None:
        """Adapt to the last draft: two thirds must be accepted to be worth their decoding."""
        if accepted * 3 >= drafted * 2:
            self._length = min(self._max_tokens, self._length * 2)
            self._next_pause = _MIN_PAUSE
            return
        self._length = max(2, self._length // 2)
        self._pause_until = len(self._tokens) + self._next_pause
        self._next_pause = min(_MAX_PAUSE, self._next_pause * 2)
