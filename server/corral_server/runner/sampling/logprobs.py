"""Logprobs of the generated tokens, and the text chunks that carry them.

Imported at the first request with logprobs: other requests have no cost for it, and the start no import of numpy.

Invariant: the logprobs of a stream's chunks are those of its tokens in their order, without the token that ended the
generation and without the tokens whose characters a stop string removed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from corral_server.runner.sampling.text import TextAssembler, TextChunk, TokenLogprob

_MIN_LOGPROB = -9999.0
"""Replaces minus infinity, which JSON cannot represent."""


class LogprobScorer:
    """Computes the logprobs of one generation; ``token_bytes`` returns a token's bytes, also of control tokens."""

    def __init__(self, token_bytes: Callable[[int], bytes], top: int) -> None:
        self._token_bytes = token_bytes
        self._top = top

    def score(self, logits: memoryview, token: int) -> TokenLogprob:
        """Return the token's logprob and the top ones; ``logits`` are the float32 bits of the whole vocabulary."""
        values = np.frombuffer(logits, dtype=np.float32)
        highest = float(values.max())
        total = highest + float(np.log(np.exp(values - highest, dtype=np.float32).sum(dtype=np.float64)))
        top = tuple(self._make(one, float(values[one]) - total) for one in _top_tokens(values, self._top))
        return self._make(token, float(values[token]) - total, top)

    def _make(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        data = self._token_bytes(token)
        return TokenLogprob(data.decode("utf-8", "replace"), max(_MIN_LOGPROB, min(0.0, logprob)), data, top)


def _top_tokens(values: NDArray[np.float32], count: int) -> list[int]:
    """Return the ``count`` most likely tokens, best first; of equal ones the first in the vocabulary."""
    if count <= 0:
        return []
    some = np.argpartition(values, -count)[-count:] if count < len(values) else np.arange(len(values))
    order: list[int] = some[np.lexsort((some, -values[some]))].tolist()
    return order


class ScoredTextAssembler:
    """A ``TextAssembler`` whose chunks carry the logprobs of their tokens."""

    def __init__(self, text: TextAssembler, scorer: LogprobScorer) -> None:
        self._text = text
        self._scorer = scorer
        self._released = 0
        self._held: deque[tuple[int, int, TokenLogprob]] = deque()
        """Index of a token's first character in the generation's text, the index after its last one, its logprob."""

    def push(self, data: bytes, token: int, *, logits: memoryview) -> TextChunk | None:
        """Take one token, its visible bytes, and the ``logits`` that it was sampled from."""
        scored = self._scorer.score(logits, token)
        start = self._released + self._text.held_length
        text = self._text.push(data)
        self._released += len(text)
        self._held.append((start, self._released + self._text.held_length + self._text.has_partial_character, scored))
        if self._text.stopped:
            return self._chunk(text, [one for first, _, one in self._held if first < self._released])
        ready = []
        while text and self._held and self._held[0][1] <= self._released:
            ready.append(self._held.popleft()[2])
        return self._chunk(text, ready)

    def flush(self) -> TextChunk | None:
        """Return what was held back, at the end of the generation."""
        rest = self._text.flush()
        return self._chunk(rest, [] if self._text.stopped else [one for _, _, one in self._held])

    def _chunk(self, text: str, scored: list[TokenLogprob]) -> TextChunk | None:
        return TextChunk(text, tuple(scored)) if text or scored else None
