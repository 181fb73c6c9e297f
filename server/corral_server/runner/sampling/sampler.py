"""Token samplers: llama.cpp's samplers in the order of llama.cpp's own server (``common/sampling.cpp``).

Penalties, top_k, typical_p, top_p, min_p, temperature, and a draw with the seed.

Invariant: the draws of a seed depend only on their number, so an answer does not depend on the other sequences of its
batches, as far as the logits do not.

Floating point limits that: llama.cpp may sum in another order in a batch of another size, and where two tokens are
closer than that difference the answer continues differently. Measured, many answers at once against the same by
llama.cpp alone: with 32-bit weights all of 300 were equal; of SmolLM2 (Q4_1) 58 of 60; of Gemma 3 (Q4_K) 25 of 40:
there a row that the CPU multiplies together with three others is rounded differently than alone, and a logit may differ
by 0.9.
"""

from __future__ import annotations

import math
import secrets
import sys
from collections.abc import Sequence
from typing import Protocol

from corral_server.runner.llama.context import LlamaContext
from corral_server.runner.llama.model import LlamaModel
from corral_server.runner.llama.sampler import LlamaSampler, stage
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.grammar_compiler import GrammarCompiler, GrammarMatcher
from corral_server.runner.sampling.parameters import SamplingParameters

_GREEDY_BELOW = 1e-3
"""Lower temperatures choose the most likely token anyway, and dividing by them overflows."""
_LARGE_VOCABULARY = 65536


class TokenSampler(Protocol):
    """Samples the tokens of one generation."""

    def sample(self, context: LlamaContext, index: int) -> int:
        """Return the next token from the logits of batch entry ``index``.

        Raises InvalidGrammar when the grammar allows none.
        """

    def close(self) -> None: ...


def is_slow_to_make(parameters: SamplingParameters, grammar: Grammar | None, *, vocab_size: int) -> bool:
    """Whether ``make_sampler`` would block an event loop: it compiles a grammar or imports numpy."""
    if grammar is not None:
        return True
    return "numpy" not in sys.modules and (_plain_greedy(parameters) or _shortlist_pays(parameters, vocab_size))


def make_sampler(
    model: LlamaModel,
    parameters: SamplingParameters,
    *,
    prompt: Sequence[int],
    grammar: Grammar | None,
    context_length: int,
    grammars: GrammarCompiler,
) -> TokenSampler:
    """Return the fastest sampler for the parameters. Raises InvalidGrammar.

    Penalties cover the end of the ``prompt`` as well.
    """
    if grammar is None and _plain_greedy(parameters):
        return _make_greedy()
    matcher = grammars.compile(grammar) if grammar is not None else None
    chain = make_chain(parameters, vocab_size=model.vocab_size, context_length=context_length)
    last = _penalty_window(parameters, context_length)
    for token in prompt[len(prompt) - min(last, len(prompt)) :]:
        chain.accept(token)
    if matcher is None and "numpy" not in sys.modules and not _shortlist_pays(parameters, model.vocab_size):
        return ChainSampler(chain)
    needed = _needed_candidates(parameters, model.vocab_size, last)
    return _make_with_candidates(chain, matcher, model.vocab_size, needed=needed)


def make_chain(parameters: SamplingParameters, *, vocab_size: int, context_length: int) -> LlamaSampler:
    """Return llama.cpp's chain of samplers for the parameters."""
    stages: list[object] = []
    last = _penalty_window(parameters, context_length)
    if last:
        repeat = _clamp(parameters.repeat_penalty or 1.0, 0.01, 100.0, default=1.0)
        frequency = _clamp(parameters.frequency_penalty, -100.0, 100.0, default=0.0)
        presence = _clamp(parameters.presence_penalty, -100.0, 100.0, default=0.0)
        stages.append(stage("penalties", vocab_size, last, repeat, frequency, presence))
    if _is_greedy(parameters):
        return LlamaSampler.chain(*stages, stage("greedy"))
    if 0 < parameters.top_k < vocab_size:
        stages.append(stage("top_k", parameters.top_k))
    if 0 < parameters.typical_p < 1:
        stages.append(stage("typical", parameters.typical_p, 1))
    if 0 <= parameters.top_p < 1:
        stages.append(stage("top_p", parameters.top_p, 1))
    if 0 < parameters.min_p <= 1:
        stages.append(stage("min_p", parameters.min_p, 1))
    stages.append(stage("temp", _clamp(parameters.temperature, 0.0, 100.0, default=0.0)))
    seed = secrets.randbits(32) if parameters.seed == -1 else parameters.seed & 0xFFFFFFFF
    return LlamaSampler.chain(*stages, stage("dist", seed))


def _make_greedy() -> TokenSampler:
    """Imported late: a runner starts faster without numpy."""
    from corral_server.runner.sampling.greedy import GreedySampler

    return GreedySampler()


def _make_with_candidates(
    chain: LlamaSampler, matcher: GrammarMatcher | None, vocab_size: int, *, needed: int
) -> TokenSampler:
    """Imported late: a runner answers a first request without these parameters sooner without numpy."""
    from corral_server.runner.sampling.constrained import ConstrainedSampler
    from corral_server.runner.sampling.shortlist import MAX_CANDIDATES, ShortlistSampler

    if matcher is not None:
        return ConstrainedSampler(chain, matcher, vocab_size, needed=needed)
    return ShortlistSampler(chain, needed, vocab_size) if needed <= MAX_CANDIDATES else ChainSampler(chain)


def _needed_candidates(parameters: SamplingParameters, vocab_size: int, penalty_window: int) -> int:
    """Return how many of the most likely tokens determine the choice."""
    top_k = _effective_top_k(parameters, vocab_size)
    if not top_k or (penalty_window and _may_raise_logits(parameters)):
        return vocab_size
    return top_k + penalty_window


def _shortlist_pays(parameters: SamplingParameters, vocab_size: int) -> bool:
    """Whether sampling from few candidates is worth the import of numpy: with penalties or a large vocabulary."""
    if not _effective_top_k(parameters, vocab_size):
        return False
    return _penalty_window(parameters, 1) > 0 or vocab_size > _LARGE_VOCABULARY


def _effective_top_k(parameters: SamplingParameters, vocab_size: int) -> int:
    """Return how many tokens top_k keeps; 0 when it keeps all."""
    if _is_greedy(parameters):
        return 1
    return parameters.top_k if 0 < parameters.top_k < vocab_size else 0


def _may_raise_logits(parameters: SamplingParameters) -> bool:
    """Whether a penalty may make a token more likely, so that it was not among the most likely ones before."""
    repeat = parameters.repeat_penalty or 1.0
    return not (repeat >= 1 and parameters.frequency_penalty >= 0 and parameters.presence_penalty >= 0)


def _is_greedy(parameters: SamplingParameters) -> bool:
    return _clamp(parameters.temperature, 0.0, 100.0, default=0.0) < _GREEDY_BELOW or parameters.top_k == 1


def _plain_greedy(parameters: SamplingParameters) -> bool:
    return _is_greedy(parameters) and _penalty_window(parameters, 1) == 0


def _clamp(value: float, low: float, high: float, *, default: float) -> float:
    """Keep a client's value where llama.cpp's arithmetic is finite: NaN fails an assertion there."""
    return min(max(value, low), high) if math.isfinite(value) else default


def _penalty_window(parameters: SamplingParameters, context_length: int) -> int:
    """Return how many of the last tokens the penalties cover; 0 without penalties."""
    neutral = parameters.repeat_penalty in (0.0, 1.0)
    if neutral and parameters.frequency_penalty == 0 and parameters.presence_penalty == 0:
        return 0
    return context_length if parameters.repeat_last_n < 0 else min(parameters.repeat_last_n, context_length)


class ChainSampler:
    """Samples from the whole vocabulary inside llama.cpp; owns the chain."""

    def __init__(self, chain: LlamaSampler) -> None:
        self._chain = chain

    def sample(self, context: LlamaContext, index: int) -> int:
        return context.sample(self._chain, index)

    def close(self) -> None:
        self._chain.close()
