"""Holds what a generation's samplers choose to a grammar.

A grammar over the whole vocabulary is slow, so the freely chosen token is checked first and only a refused one is
chosen again among the allowed. What always holds: the grammar is only told tokens that it allowed, or it would throw.
"""

from __future__ import annotations

import numpy as np

from corral_server.runner.generation import InvalidGrammar
from corral_server.runner.llama import LlamaContext
from corral_server.runner.llama_sampler import Sampler

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""``llama_token_data``."""


class GrammarChooser:
    """Takes the samplers over, and frees them."""

    def __init__(self, chain: Sampler, grammar: Sampler, vocab_size: int) -> None:
        self._chain = chain
        self._grammar = grammar
        self._all = CandidateArray(vocab_size)
        self._one = CandidateArray(1)

    def choose(self, context: LlamaContext, index: int) -> int:
        """See ``Chooser.choose``."""
        logits = context.logits(index)
        self._all.fill(logits)
        token = self._chain.apply(self._all)
        if not self._allows(token):
            self._all.fill(logits)
            self._grammar.apply(self._all)
            if not self._all.drop_impossible():
                raise InvalidGrammar("the grammar lets no token of the model's vocabulary follow here")
            token = self._chain.apply(self._all)
        self._chain.accept(token)
        self._grammar.accept(token)
        return token

    def _allows(self, token: int) -> bool:
        self._one.set(token)
        self._grammar.apply(self._one)
        return self._one.drop_impossible() == 1

    def close(self) -> None:
        self._chain.close()
        self._grammar.close()


class CandidateArray:
    """Every token, or some of them, with its logit, in memory that llama.cpp's samplers work in."""

    def __init__(self, size: int) -> None:
        self._memory = np.zeros(size, dtype=_CANDIDATE)
        self._ids = np.arange(size, dtype=np.int32)
        self._size = size

    @property
    def address(self) -> int:
        return int(self._memory.ctypes.data)

    def __len__(self) -> int:
        return self._size

    def fill(self, logits: memoryview) -> None:
        """Every token with its logit, given as the bits of float32."""
        self._size = len(self._ids)
        self._memory["id"] = self._ids
        self._memory["logit"] = np.frombuffer(logits, dtype=np.float32)

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
