"""Chooses the next token of one generation: llama.cpp's samplers in the order that llama.cpp's own server has them.

Penalties, top_k, typical_p, top_p, min_p, temperature, and a draw with the seed. A seed's draws depend on nothing but
how many there were, so an answer is the same whatever else is in the batch, as far as the logits are. Floating point
forbids more: llama.cpp may sum in another order in a batch of another size, and where two tokens are as close as that
difference, the answer goes another way from there on. Measured, many answers at once beside the same by llama.cpp
alone: with 32-bit weights all of 300 were the same; of SmolLM2 (Q4_1) 58 of 60; of Gemma 3 (Q4_K) 25 of 40, for there
a row that the CPU multiplies with three others is rounded otherwise than by itself: a logit may differ by 0.9.
"""

from __future__ import annotations

import math
import secrets
import sys
from typing import Protocol

from corral_server.runner.generation import Sampling, Task
from corral_server.runner.llama import LlamaContext, LlamaModel
from corral_server.runner.llama_sampler import Sampler, link

_GREEDY_BELOW = 1e-3
"""Temperatures below this choose the likeliest token anyway, and dividing by them overflows."""
_LARGE = 65536
"""Tokens of a vocabulary."""


class Chooser(Protocol):
    """Picks tokens for one generation."""

    def choose(self, context: LlamaContext, index: int) -> int:
        """The next token from the logits of batch entry ``index``. Raises InvalidGrammar when it lets none follow."""

    def close(self) -> None: ...


def takes_long(task: Task, vocab_size: int) -> bool:
    """Whether making the chooser is not for an event loop: a grammar is compiled, or numpy is imported."""
    if task.grammar is not None:
        return True
    return "numpy" not in sys.modules and (_plain_greedy(task.sampling) or _spares_much(task.sampling, vocab_size))


def chooser(model: LlamaModel, task: Task, *, context_length: int) -> Chooser:
    """Raises InvalidGrammar."""
    if task.grammar is None and _plain_greedy(task.sampling):
        return _greedy()
    grammar = model.grammar(task.grammar) if task.grammar is not None else None
    chain = _chain(model, task.sampling, context_length=context_length)
    last = _penalty_window(task.sampling, context_length)
    for token in task.prompt[len(task.prompt) - min(last, len(task.prompt)) :]:
        chain.accept(token)
    if grammar is None and "numpy" not in sys.modules and not _spares_much(task.sampling, model.vocab_size):
        return FreeChooser(chain)
    return _from_few(chain, grammar, model.vocab_size, sampling=task.sampling, penalized=last)


def _greedy() -> Chooser:
    """Imported only here: a start is faster without numpy."""
    from corral_server.runner.greedy import GreedyChooser

    return GreedyChooser()


def _from_few(
    chain: Sampler, grammar: Sampler | None, vocab_size: int, *, sampling: Sampling, penalized: int
) -> Chooser:
    """Imported only here: a runner that is asked for nothing special answers its first request without numpy."""
    from corral_server.runner.constrained import GrammarChooser
    from corral_server.runner.shortlist import MOST, Cut, ShortChooser

    top = _top(sampling, vocab_size)
    follows = 0 < sampling.top_p < 1 and not 0 < sampling.typical_p < 1
    cut: Cut | None = Cut(top, penalized, sampling.top_p if follows else 1.0)
    if not top or (penalized and _may_raise(sampling)):
        cut = None
    if grammar is not None:
        return GrammarChooser(chain, grammar, vocab_size, cut=cut)
    return ShortChooser(chain, cut, vocab_size) if cut is not None and cut.needed <= MOST else FreeChooser(chain)


def _spares_much(sampling: Sampling, vocab_size: int) -> bool:
    """Whether choosing from few tokens is worth the import of numpy: penalties and large vocabularies take long."""
    return bool(_top(sampling, vocab_size)) and (_penalty_window(sampling, 1) > 0 or vocab_size > _LARGE)


def _top(sampling: Sampling, vocab_size: int) -> int:
    """How many tokens top_k leaves; 0 when it leaves all."""
    if _is_greedy(sampling):
        return 1
    return sampling.top_k if 0 < sampling.top_k < vocab_size else 0


def _may_raise(sampling: Sampling) -> bool:
    """Whether a penalty may make a token likelier, so that it is none of the likeliest before."""
    repeat = sampling.repeat_penalty or 1.0
    return not (repeat >= 1 and sampling.frequency_penalty >= 0 and sampling.presence_penalty >= 0)


def _chain(model: LlamaModel, sampling: Sampling, *, context_length: int) -> Sampler:
    links: list[object] = []
    last = _penalty_window(sampling, context_length)
    if last:
        repeat = _within(sampling.repeat_penalty or 1.0, 0.01, 100.0, default=1.0)
        frequency = _within(sampling.frequency_penalty, -100.0, 100.0, default=0.0)
        presence = _within(sampling.presence_penalty, -100.0, 100.0, default=0.0)
        links.append(link("penalties", model.vocab_size, last, repeat, frequency, presence))
    if _is_greedy(sampling):
        return Sampler.chain(*links, link("greedy"))
    if 0 < sampling.top_k < model.vocab_size:
        links.append(link("top_k", sampling.top_k))
    if 0 < sampling.typical_p < 1:
        links.append(link("typical", sampling.typical_p, 1))
    if 0 <= sampling.top_p < 1:
        links.append(link("top_p", sampling.top_p, 1))
    if 0 < sampling.min_p <= 1:
        links.append(link("min_p", sampling.min_p, 1))
    seed = secrets.randbits(32) if sampling.seed == -1 else sampling.seed & 0xFFFFFFFF
    return Sampler.chain(
        *links, link("temp", _within(sampling.temperature, 0.0, 100.0, default=0.0)), link("dist", seed)
    )


def _is_greedy(sampling: Sampling) -> bool:
    return _within(sampling.temperature, 0.0, 100.0, default=0.0) < _GREEDY_BELOW or sampling.top_k == 1


def _plain_greedy(sampling: Sampling) -> bool:
    return _is_greedy(sampling) and _penalty_window(sampling, 1) == 0


def _within(value: float, low: float, high: float, *, default: float) -> float:
    """Keeps what a client sent to where llama.cpp's arithmetic stays finite: NaN trips an assertion there."""
    return min(max(value, low), high) if math.isfinite(value) else default


def _penalty_window(sampling: Sampling, context_length: int) -> int:
    """Tokens that the penalties look back on; 0 when no penalty is set."""
    neutral = sampling.repeat_penalty in (0.0, 1.0)
    if neutral and sampling.frequency_penalty == 0 and sampling.presence_penalty == 0:
        return 0
    return context_length if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, context_length)


class FreeChooser:
    """Without a grammar all of it happens inside llama.cpp."""

    def __init__(self, chain: Sampler) -> None:
        self._chain = chain

    def choose(self, context: LlamaContext, index: int) -> int:
        return context.sample(self._chain, index)

    def close(self) -> None:
        self._chain.close()
