"""Candidates for the next token, in memory that llama.cpp's samplers work in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""``llama_token_data``."""


class CandidateArray:
    """Every token of the vocabulary, or some of them, with its logit. ``size`` are the most that there can be."""

    def __init__(self, size: int) -> None:
        self._memory = np.empty(size, dtype=_CANDIDATE)
        self._size = 0

    @property
    def address(self) -> int:
        return int(self._memory.ctypes.data)

    def __len__(self) -> int:
        return self._size

    @property
    def logits(self) -> NDArray[np.float32]:
        """A view of them, in the candidates' order."""
        view: NDArray[np.float32] = self._memory[: self._size]["logit"]
        return view

    def fill(self, logits: NDArray[np.float32], ids: NDArray[np.int64]) -> None:
        """These tokens; ``logits`` are those of the whole vocabulary."""
        self._size = len(ids)
        filled = self._memory[: self._size]
        filled["id"] = ids
        filled["logit"] = logits[ids]
        filled["p"] = 0

    def drop_impossible(self) -> int:
        """Leaves only the tokens that still have a chance, and returns their number; samplers divide by their sum."""
        left = self._memory[: self._size]
        left = left[left["logit"] != -np.inf]
        self._size = len(left)
        self._memory[: self._size] = left
        return self._size

    def set(self, token: int) -> None:
        """Only this token, with logit 0."""
        self._memory[0] = (token, 0.0, 0.0)
        self._size = 1
