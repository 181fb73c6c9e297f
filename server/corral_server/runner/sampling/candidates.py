"""Candidate tokens in the memory layout of llama.cpp's samplers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""``llama_token_data``."""


class CandidateArray:
    """Tokens with their logits; at most ``capacity``."""

    def __init__(self, capacity: int) -> None:
        self._memory = np.empty(capacity, dtype=_CANDIDATE)
        self._size = 0

    @property
    def address(self) -> int:
        return int(self._memory.ctypes.data)

    def __len__(self) -> int:
        return self._size

    def fill(self, logits: NDArray[np.float32], ids: NDArray[np.int64]) -> None:
        """Set the candidates to these tokens; ``logits`` are those of the whole vocabulary."""
        self._size = len(ids)
        filled = self._memory[: self._size]
        filled["id"] = ids
        filled["logit"] = logits[ids]
        filled["p"] = 0
