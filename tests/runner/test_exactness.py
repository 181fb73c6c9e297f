"""Whatever else the engine does and did before, a request is answered as by an engine that never did anything else.

With 32-bit cells and without flash attention, so that rounding changes no token.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral_server.runner.contexts import AdapterFile
from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import Sampling, Task
from tests.runner.engines import GREEDY, answer, ask
from tests.support.lora import write_lora
from tests.support.tiny_model import EMBEDDING, LAYERS, write

pytestmark = pytest.mark.process

CONTEXT = 160
TASKS = 120
ADAPTERS = ("one", "two")
EXACT = EngineOptions(context_length=CONTEXT, slots=4, batch=64, threads=1, cache_type="f32", flash_attention=False)
_SAMPLINGS = (
    GREEDY,
    GREEDY,
    Sampling(seed=7),
    Sampling(seed=2**32 - 2, temperature=1.5, top_k=0, top_p=1.0),
    Sampling(seed=5, typical_p=0.5),
    Sampling(seed=3, min_p=0.1),
    Sampling(seed=9, repeat_penalty=1.2, presence_penalty=0.5, frequency_penalty=0.3, repeat_last_n=30),
)
_GRAMMARS = (None, None, 'root ::= "{" [a-z ]+ "}"', 'root ::= [0-9]+ ("," [0-9]+)* "."')


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    engine = _load(tmp_path_factory.mktemp("alone"), replace(EXACT, slots=1))
    yield engine
    engine.close()


@pytest.mark.parametrize("draft", [0, 8], ids=["plain", "drafts"])
def test_many_at_once_say_what_each_says_alone(tmp_path: Path, alone: LlamaEngine, draft: int) -> None:
    engine = _load(tmp_path, replace(EXACT, draft=draft))
    try:
        tasks = [_task(engine, random.Random(number)) for number in range(TASKS)]
        together = asyncio.run(_answers(engine, tasks))
    finally:
        engine.close()
    different = [number for number, task in enumerate(tasks) if together[number] != _fresh(alone, task)]
    assert different == []


def test_cells_that_a_full_window_moved_are_of_no_use_to_others(alone: LlamaEngine) -> None:
    """The text repeats itself, so that what is left after a shift looks as if it had been read."""
    long, short = (tuple(alone.tokenize("abcdefgh" * n, **_PLAIN)) for n in (19, 12))
    answer(alone, Task(long, GREEDY, max_tokens=12, keep=16))
    got = answer(alone, Task(short, GREEDY, max_tokens=4))
    assert got.finish.cached_tokens == 16
    assert got.finish.generated == _fresh(alone, Task(short, GREEDY, max_tokens=4))


def _load(folder: Path, options: EngineOptions) -> LlamaEngine:
    adapters = {}
    for seed, name in enumerate(ADAPTERS):
        path = write_lora(folder / f"{name}.gguf", seed=seed, width=EMBEDDING, layers=LAYERS)
        adapters[name] = AdapterFile(path)
    return LlamaEngine.load(write(folder), replace(options, adapters=adapters))


def _fresh(engine: LlamaEngine, task: Task) -> tuple[int, ...]:
    engine._memory.forget_idle()
    return answer(engine, task).finish.generated


async def _answers(engine: LlamaEngine, tasks: list[Task]) -> list[tuple[int, ...]]:
    """All of them, a few at a time, among others whose readers leave."""
    places, draw = asyncio.Semaphore(6), random.Random(0)

    async def one(task: Task) -> tuple[int, ...]:
        async with places:
            if draw.random() < 0.2:
                leaving = asyncio.ensure_future(ask(engine, task))
                await asyncio.wait([leaving], timeout=draw.random() / 50)
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
            return (await ask(engine, task)).finish.generated

    return list(await asyncio.gather(*(one(task) for task in tasks)))


def _task(engine: LlamaEngine, draw: random.Random) -> Task:
    beginning = engine.tokenize("abcdeth " * 40, add_special=True, parse_special=False)
    prompt = beginning[: draw.choice((1, 20, 60, 100, 140, CONTEXT - 2))]
    prompt += engine.tokenize(draw.choice(("", "Tell me", "1 1 1 1 1 2 2 2", "x")), **_PLAIN)
    return Task(
        tuple(prompt[: CONTEXT - 1]),
        draw.choice(_SAMPLINGS),
        grammar=draw.choice(_GRAMMARS),
        max_tokens=draw.choice((1, 8, 24, 60)),
        keep=draw.choice((0, 4, 20)),
        shift=draw.random() < 0.8,
        adapter=draw.choice(("", "", *ADAPTERS)),
    )


_PLAIN = {"add_special": False, "parse_special": False}
