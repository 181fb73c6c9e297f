"""What the model thought of its tokens, and which piece of text brings it.

Imported when the first request asks for it: without logprobs a token costs nothing here, and a start no import of
numpy. What always holds: the logprobs of a stream's pieces are those of its tokens in their order, without the token
that ended the generation and without tokens whose characters a stop string took away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from corral_server.runner.generation import Piece, TokenLogprob
from corral_server.runner.text import TextAssembler

Bytes = Callable[[int], bytes]
"""A token's bytes, those of control tokens included."""

_LEAST = -9999.0
"""In place of minus infinity, which JSON cannot say."""


class Scorer:
    """Scores the tokens of one generation."""

    def __init__(self, bytes_of: Bytes, top: int) -> None:
        self._bytes_of = bytes_of
        self._top = top

    def score(self, logits: memoryview, token: int) -> TokenLogprob:
        """``logits`` are the bits of float32 of the whole vocabulary."""
        values = np.frombuffer(logits, dtype=np.float32)
        highest = float(values.max())
        total = highest + float(np.log(np.exp(values - highest, dtype=np.float32).sum(dtype=np.float64)))
        top = tuple(self._named(one, float(values[one]) - total) for one in _best(values, self._top))
        return self._named(token, float(values[token]) - total, top)

    def _named(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        data = self._bytes_of(token)
        return TokenLogprob(data.decode("utf-8", "replace"), max(_LEAST, min(0.0, logprob)), data, top)


def _best(values: NDArray[np.float32], count: int) -> list[int]:
    """The ``count`` likeliest tokens, best first; of equal ones the first in the vocabulary."""
    if count <= 0:
        return []
    some = np.argpartition(values, -count)[-count:] if count < len(values) else np.arange(len(values))
    order: list[int] = some[np.lexsort((some, -values[some]))].tolist()
    return order


class ScoredText:
    """A TextAssembler whose pieces bring the logprobs of their tokens."""

    def __init__(self, text: TextAssembler, scorer: Scorer) -> None:
        self._text = text
        self._scorer = scorer
        self._shown = 0
        self._waiting: deque[tuple[int, int, TokenLogprob]] = deque()
        """First character of a token and the one after its last, as numbers in the generation's text."""

    def push(self, data: bytes, token: int, *, logits: memoryview) -> Piece | None:
        """Takes one token, the bytes it shows, and the ``logits`` that it was chosen from."""
        scored = self._scorer.score(logits, token)
        start = self._shown + self._text.held
        shown = self._text.push(data)
        self._shown += len(shown)
        self._waiting.append((start, self._shown + self._text.held + self._text.unfinished, scored))
        if self._text.stopped:
            return self._piece(shown, [one for first, _, one in self._waiting if first < self._shown])
        ready = []
        while shown and self._waiting and self._waiting[0][1] <= self._shown:
            ready.append(self._waiting.popleft()[2])
        return self._piece(shown, ready)

    def flush(self) -> Piece | None:
        """What was still held when the generation ended."""
        rest = self._text.flush()
        return self._piece(rest, [] if self._text.stopped else [one for _, _, one in self._waiting])

    def _piece(self, text: str, scored: list[TokenLogprob]) -> Piece | None:
        return Piece(text, tuple(scored)) if text or scored else None
