"""Holds what a generation's samplers choose to a grammar.

A grammar over the whole vocabulary is slow (measured: 4 ms for 49,152 tokens, 24 ms for 262,144), so the freely chosen
token is checked first. When it is refused, the grammar is asked about the likeliest tokens, and about the others only
when those that it allows do not settle the choice. What always holds: the token is the one that the samplers choose
from all that the grammar allows, and the grammar is only told tokens that it allowed, or it would throw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corral_server.runner.candidates import CandidateArray
from corral_server.runner.generation import InvalidGrammar
from corral_server.runner.llama import LlamaContext
from corral_server.runner.llama_sampler import Sampler
from corral_server.runner.shortlist import MOST, Cut, likeliest, settled


class GrammarChooser:
    """Takes the samplers over, and frees them. ``cut`` is None when they need the whole vocabulary."""

    def __init__(self, chain: Sampler, grammar: Sampler, vocab_size: int, *, cut: Cut | None) -> None:
        self._chain = chain
        self._grammar = grammar
        self._cut = cut or Cut(vocab_size)
        self._candidates = CandidateArray(vocab_size)
        self._one = CandidateArray(1)

    def choose(self, context: LlamaContext, index: int) -> int:
        """See ``Chooser.choose``."""
        logits = np.frombuffer(context.logits(index), dtype=np.float32)
        self._candidates.fill(logits, likeliest(logits, self._cut.needed))
        token = self._chain.apply(self._candidates)
        if not self._allows(token):
            token = self._allowed(logits)
        self._chain.accept(token)
        self._grammar.accept(token)
        return token

    def _allowed(self, logits: NDArray[np.float32]) -> int:
        """Chosen from what the grammar allows. Raises InvalidGrammar when that is nothing."""
        for count in (MOST, len(logits)):
            self._candidates.fill(logits, likeliest(logits, count))
            whole, least = len(self._candidates) == len(logits), float(self._candidates.logits.min())
            self._grammar.apply(self._candidates)
            left = self._candidates.drop_impossible()
            if left >= self._cut.needed or (whole and left) or settled(self._candidates.logits, least, self._cut):
                return self._chain.apply(self._candidates)
        raise InvalidGrammar("the grammar lets no token of the model's vocabulary follow here")

    def _allows(self, token: int) -> bool:
        self._one.set(token)
        self._grammar.apply(self._one)
        return self._one.drop_impossible() == 1

    def close(self) -> None:
        self._chain.close()
        self._grammar.close()
