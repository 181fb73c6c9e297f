"""Chooses the next token of one generation: llama.cpp's samplers in Ollama's order, held to a grammar if there is one.

A grammar over the whole vocabulary is slow, so the freely chosen token is checked first and only a refused one is
chosen again among the allowed. What always holds: the grammar is only told tokens that it allowed, or it would throw.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from array import array
from typing import Protocol

from corral_server.runner.generation import InvalidGrammar, Sampling, Task
from corral_server.runner.llama import LlamaContext, LlamaModel
from corral_server.runner.llama_sampler import Sampler, link

_WORDS = 3
_MINUS_INFINITY = -0x800000
"""The bits of float32's minus infinity, read as int32."""
_GREEDY_BELOW = 1e-3
"""Temperatures below this choose the likeliest token anyway, and dividing by them overflows."""


class Chooser(Protocol):
    """Picks tokens for one generation."""

    def choose(self, context: LlamaContext, index: int) -> int:
        """The next token from the logits of batch entry ``index``. Raises InvalidGrammar when it lets none follow."""

    def close(self) -> None: ...


def chooser(model: LlamaModel, task: Task, *, context_length: int) -> Chooser:
    """Raises InvalidGrammar."""
    grammar = model.grammar(task.grammar) if task.grammar is not None else None
    chain = _chain(model, task.sampling, context_length=context_length)
    last = _penalty_window(task.sampling, context_length)
    for token in task.prompt[len(task.prompt) - min(last, len(task.prompt)) :]:
        chain.accept(token)
    return FreeChooser(chain) if grammar is None else GrammarChooser(chain, grammar, model.vocab_size)


def _chain(model: LlamaModel, sampling: Sampling, *, context_length: int) -> Sampler:
    links: list[object] = []
    last = _penalty_window(sampling, context_length)
    if last:
        repeat = _within(sampling.repeat_penalty or 1.0, 0.01, 100.0, default=1.0)
        frequency = _within(sampling.frequency_penalty, -100.0, 100.0, default=0.0)
        presence = _within(sampling.presence_penalty, -100.0, 100.0, default=0.0)
        links.append(link("penalties", model.vocab_size, last, repeat, frequency, presence))
    temperature = _within(sampling.temperature, 0.0, 100.0, default=0.0)
    if temperature < _GREEDY_BELOW or sampling.top_k == 1:
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
    return Sampler.chain(*links, link("temp", temperature), link("dist", seed))


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


class GrammarChooser:
    """Holds what the chain chooses to the grammar."""

    def __init__(self, chain: Sampler, grammar: Sampler, vocab_size: int) -> None:
        self._chain = chain
        self._grammar = grammar
        self._all = CandidateArray(vocab_size)
        self._one = CandidateArray(1)

    def choose(self, context: LlamaContext, index: int) -> int:
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
        return self._one.possible(0)

    def close(self) -> None:
        self._chain.close()
        self._grammar.close()


class CandidateArray:
    """``llama_token_data`` (id int32, logit float32, p float32) for every token, as int32 words: bits are copied."""

    def __init__(self, size: int) -> None:
        self._memory = (ctypes.c_int32 * (_WORDS * size))()
        self._words = memoryview(self._memory).cast("B").cast("i")
        self._ids = memoryview(array("i", range(size)))
        self._size = size

    @property
    def address(self) -> int:
        return ctypes.addressof(self._memory)

    def __len__(self) -> int:
        return self._size

    def fill(self, logits: memoryview) -> None:
        """Every token with its logit, given as the bits of float32 in int32."""
        self._size = len(self._ids)
        self._words[0::_WORDS] = self._ids
        self._words[1::_WORDS] = logits

    def drop_impossible(self) -> int:
        """Leaves only the tokens that still have a chance, and returns their number; samplers divide by their sum."""
        ids, logits = self._words[0::_WORDS].tolist(), self._words[1::_WORDS].tolist()
        left = [at for at, bits in enumerate(logits) if bits != _MINUS_INFINITY]
        self._size = len(left)
        self._words[0 : _WORDS * self._size : _WORDS] = memoryview(array("i", [ids[at] for at in left]))
        self._words[1 : _WORDS * self._size : _WORDS] = memoryview(array("i", [logits[at] for at in left]))
        return self._size

    def set(self, token: int) -> None:
        """Only this token, with logit 0."""
        self._words[0], self._words[1], self._size = token, 0, 1

    def possible(self, index: int) -> bool:
        return bool(self._words[_WORDS * index + 1] != _MINUS_INFINITY)
