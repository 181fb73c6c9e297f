"""Token sampler that holds a generation to a grammar.

Invariant: the token is one that the samplers choose from the tokens that the grammar allows.

A token is first sampled without the grammar and checked, as in llama.cpp (``common_sampler_sample`` in
``common/sampling.cpp``): a check takes some microseconds, a mask of the vocabulary up to 20 ms (measured: 262,144
tokens, within a string). Only if the grammar rejects the token, the mask is computed, and the samplers choose among
the most likely of the allowed tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corral_server.runner.llama.context import LlamaContext
from corral_server.runner.llama.sampler import LlamaSampler
from corral_server.runner.sampling.candidates import CandidateArray
from corral_server.runner.sampling.grammar_compiler import GrammarMatcher
from corral_server.runner.sampling.shortlist import top_candidates


class ConstrainedSampler:
    """Owns the chain of samplers. ``needed`` as in ``ShortlistSampler``."""

    def __init__(self, chain: LlamaSampler, matcher: GrammarMatcher, vocab_size: int, *, needed: int) -> None:
        self._chain = chain
        self._matcher = matcher
        self._needed = needed
        self._candidates = CandidateArray(vocab_size)

    def sample(self, context: LlamaContext, index: int) -> int:
        """See ``TokenSampler.sample``."""
        logits = np.frombuffer(context.logits(index), dtype=np.float32)
        token = self._sample(logits, top_candidates(logits, self._needed))
        if not self._matcher.allows(token):
            allowed = self._matcher.allowed_tokens()
            token = self._sample(logits, allowed[top_candidates(logits[allowed], self._needed)])
        self._chain.accept(token)
        self._matcher.consume(token)
        return token

    def _sample(self, logits: NDArray[np.float32], ids: NDArray[np.int64]) -> int:
        self._candidates.fill(logits, ids)
        return self._chain.apply(self._candidates)

    def close(self) -> None:
        self._chain.close()
