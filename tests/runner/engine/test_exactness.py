"""A task has the same tokens whatever else the engine does and did before.

With a 32-bit KV cache and without flash attention, so that rounding changes no token.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import AdapterFile, EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.parameters import SamplingParameters
from tests.runner.engines import GREEDY, ask
from tests.support.lora import write_lora
from tests.support.tiny_model import EMBEDDING, LAYERS, write_tiny_model

pytestmark = pytest.mark.process

CONTEXT = 160
TASKS = 120
ADAPTERS = ("one", "two")
EXACT = EngineOptions(
    context_length=CONTEXT, slots=4, batch_size=64, threads=1, cache_type="f32", flash_attention=False
)
_PARAMETERS = (
    GREEDY,
    GREEDY,
    SamplingParameters(seed=7),
    SamplingParameters(seed=2**32 - 2, temperature=1.5, top_k=0, top_p=1.0),
    SamplingParameters(seed=5, typical_p=0.5),
    SamplingParameters(seed=3, min_p=0.1),
    SamplingParameters(seed=9, repeat_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.3, repeat_last_n=30),
)
_GRAMMARS = (None, None, Grammar("start: /[{][a-z ]+[}]/"), Grammar("start: /[0-9]+(,[0-9]+)*[.]/"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    engine = _load(tmp_path_factory.mktemp("alone"), replace(EXACT, slots=1))
    yield engine
    engine.close()


@pytest.mark.parametrize("draft", [0, 8], ids=["plain", "drafts"])
async def test_concurrent_tasks_have_the_tokens_of_lone_tasks(tmp_path: Path, alone: LlamaEngine, draft: int) -> None:
    engine = _load(tmp_path, replace(EXACT, draft_tokens=draft))
    try:
        tasks = [_task(engine, random.Random(number)) for number in range(TASKS)]
        together = await _answers(engine, tasks)
    finally:
        engine.close()
    expected = [await _fresh(alone, task) for task in tasks]
    assert [number for number in range(TASKS) if together[number] != expected[number]] == []


async def test_cells_that_a_context_shift_moved_are_not_reused(alone: LlamaEngine) -> None:
    """The text repeats itself, so the cells after a shift have the tokens of a prompt."""
    long, short = (tuple(alone.tokenize("abcdefgh" * n, **_PLAIN)) for n in (19, 12))
    await ask(alone, GenerationTask(long, GREEDY, max_tokens=12, keep=16))
    task = GenerationTask(short, GREEDY, max_tokens=4)
    got = await ask(alone, task)
    assert got.result.cached_tokens == 16
    assert got.result.tokens == await _fresh(alone, task)


def _load(folder: Path, options: EngineOptions) -> LlamaEngine:
    adapters = {}
    for seed, name in enumerate(ADAPTERS):
        path = write_lora(folder / f"{name}.gguf", seed=seed, width=EMBEDDING, layers=LAYERS)
        adapters[name] = AdapterFile(path)
    return LlamaEngine.load(write_tiny_model(folder), replace(options, adapters=adapters))


async def _fresh(engine: LlamaEngine, task: GenerationTask) -> tuple[int, ...]:
    engine._cache.clear_idle_slots()
    return (await ask(engine, task)).result.tokens


async def _answers(engine: LlamaEngine, tasks: list[GenerationTask]) -> list[tuple[int, ...]]:
    """Run all tasks, six at a time, among others that are cancelled."""
    places, draw = asyncio.Semaphore(6), random.Random(0)

    async def run(task: GenerationTask) -> tuple[int, ...]:
        async with places:
            if draw.random() < 0.2:
                cancelled = asyncio.ensure_future(ask(engine, task))
                await asyncio.wait([cancelled], timeout=draw.random() / 50)
                cancelled.cancel()
                await asyncio.gather(cancelled, return_exceptions=True)
            return (await ask(engine, task)).result.tokens

    return list(await asyncio.gather(*(run(task) for task in tasks)))


def _task(engine: LlamaEngine, draw: random.Random) -> GenerationTask:
    beginning = engine.tokenize("abcdeth " * 40, add_special=True, parse_special=False)
    prompt = beginning[: draw.choice((1, 20, 60, 100, 140, CONTEXT - 2))]
    prompt += engine.tokenize(draw.choice(("", "Tell me", "1 1 1 1 1 2 2 2", "x")), **_PLAIN)
    return GenerationTask(
        tuple(prompt[: CONTEXT - 1]),
        draw.choice(_PARAMETERS),
        grammar=draw.choice(_GRAMMARS),
        max_tokens=draw.choice((1, 8, 24, 60)),
        keep=draw.choice((0, 4, 20)),
        context_shift=draw.random() < 0.8,
        adapter=draw.choice(("", "", *ADAPTERS)),
    )


_PLAIN = {"add_special": False, "parse_special": False}
