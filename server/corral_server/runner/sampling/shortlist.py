"""Shortlist sampler: samples from the most likely tokens only, where that cannot change the choice.

llama.cpp's samplers work on the whole vocabulary until top_k has cut it. Measured for each token: 0.05 ms with 49,152
tokens in the vocabulary and no penalties, 1.1 ms with 262,144 and penalties.

Invariant: the token is the one that llama.cpp's samplers choose from the whole vocabulary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corral_server.runner.llama.context import LlamaContext
from corral_server.runner.llama.sampler import LlamaSampler
from corral_server.runner.sampling.candidates import CandidateArray

_GROUPS = 1024
"""Groups of tokens whose maxima are compared first."""
MAX_CANDIDATES = 512
"""A longer list saves little."""


def top_candidates(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the ids, ascending, of the ``count`` greatest logits and of some close to them; perhaps all ids.

    Each group's maximum is one of the logits, so the ``count``-th greatest maximum bounds the greatest logits from
    below.
    """
    rows = len(logits) // _GROUPS
    if rows < 2 or count > MAX_CANDIDATES:
        return np.arange(len(logits))
    greatest = logits[: rows * _GROUPS].reshape(rows, _GROUPS).max(axis=0)
    bound = np.partition(greatest, _GROUPS - count)[_GROUPS - count]
    found = np.flatnonzero(logits >= bound)
    return found if len(found) >= count else np.arange(len(logits))  # a comparison with NaN is false


class ShortlistSampler:
    """Samples from the ``needed`` most likely tokens; owns the chain.

    ``needed`` is the number of tokens that top_k keeps, and as many more as penalties may lower.
    """

    def __init__(self, chain: LlamaSampler, needed: int, vocab_size: int) -> None:
        self._chain = chain
        self._needed = needed
        self._candidates = CandidateArray(vocab_size)

    def sample(self, context: LlamaContext, index: int) -> int:
        logits = np.frombuffer(context.logits(index), dtype=np.float32)
        self._candidates.fill(logits, top_candidates(logits, self._needed))
        token = self._chain.apply(self._candidates)
        self._chain.accept(token)
        return token

    def close(self) -> None:
        self._chain.close()
