"""Grammars of one client beside the streams of others: compiling and masks do not hold them up."""

from __future__ import annotations

import asyncio

import pytest

from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.errors import InvalidGrammar
from corral_server.runner.sampling.lark import json_grammar
from corral_server.runner.sampling.parameters import SamplingParameters
from tests.runner.engines import ENDLESS, GREEDY, answer, ask, chat

pytestmark = pytest.mark.process

SLOW = [json_grammar({"type": "string", "allOf": [{"pattern": f".*{n}.*"} for n in range(29 + m)]}) for m in range(7)]
"""Each takes hours to compile; no two are equal."""


def test_streams_and_requests_continue_while_hostile_grammars_compile(engine: LlamaEngine) -> None:
    """There are more of them than ``asyncio.to_thread`` has threads on a machine of two cores."""

    async def run() -> None:
        hostile = [asyncio.ensure_future(ask(engine, GenerationTask(chat(engine, "Hi"), grammar=g))) for g in SLOW]
        stream = await ask(engine, GenerationTask(chat(engine, "Hi"), GREEDY, grammar=ENDLESS, max_tokens=100))
        await asyncio.to_thread(len, "another request")
        assert len(stream.result.tokens) == 100
        assert not all(task.done() for task in hostile)
        for task in hostile:
            with pytest.raises(InvalidGrammar, match=r"longer than 0.5 s|memory limit"):
                await task

    asyncio.run(run())


def test_a_mask_over_the_limits_ends_its_own_generation(engine: LlamaEngine) -> None:
    """llguidance counts the work of each mask, so a step of all streams is never delayed for long."""
    grammar = json_grammar({"type": "string", "pattern": "(.*[a-m].{300})+"})

    async def run() -> None:
        hot = SamplingParameters(temperature=3.0, top_k=0, top_p=1.0, seed=1)
        stream = asyncio.ensure_future(
            ask(engine, GenerationTask(chat(engine, "Hi"), GREEDY, grammar=ENDLESS, max_tokens=100))
        )
        with pytest.raises(InvalidGrammar, match="too many expressions"):
            await ask(engine, GenerationTask(chat(engine, "Hi"), hot, grammar=grammar, max_tokens=100))
        assert len((await stream).result.tokens) == 100

    asyncio.run(run())


def test_a_grammar_over_the_limits_at_its_start_is_refused_before_the_first_step(engine: LlamaEngine) -> None:
    """Its first mask is computed where it is compiled, not between two steps of other streams."""
    grammar = json_grammar({"properties": {f"k{n}": {"type": "string"} for n in range(1000)}})
    computed = engine.metrics.prompt_tokens
    with pytest.raises(InvalidGrammar, match="items; max is"):
        answer(engine, GenerationTask(chat(engine, "Hi"), grammar=grammar))
    assert engine.metrics.prompt_tokens == computed
