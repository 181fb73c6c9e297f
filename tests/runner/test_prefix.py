"""Prompts that begin as another one get its cells in place of reading them again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import cast

import pytest

from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import Finish, Task
from corral_server.runner.llama import LlamaContext
from corral_server.runner.memory import SlotMemory
from corral_server.runner.prefix import find_source
from corral_server.runner.sampling import Chooser
from corral_server.runner.sequence import Generation, Slot
from corral_server.runner.stream import Stream
from corral_server.runner.text import TextAssembler
from tests.runner.engines import GREEDY, Answer, answer, answers, ask, chat, weights, words
from tests.support.waiting import auntil

SHARED = 120
ENDLESS = "root ::= [a-z ] root"


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    options = EngineOptions(context_length=256, slots=4, batch=64, threads=1)
    engine = LlamaEngine.load(weights(), options)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def forget(request: pytest.FixtureRequest) -> None:
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine")._memory.forget_idle()


def test_the_longest_common_beginning_elsewhere_is_the_source() -> None:
    slots = [Slot(0), Slot(1, list(range(40))), Slot(2, list(range(30)))]
    source = find_source(slots[0], tuple(range(100)), slots, length=256)
    assert source is not None
    assert (source.slot.sequence, source.length, source.ready(range(100)), source.coming) == (1, 40, True, False)


def test_a_short_common_beginning_is_read_again() -> None:
    slots = [Slot(0), Slot(1, list(range(10)))]
    assert find_source(slots[0], tuple(range(100)), slots, length=256) is None
    longer = [Slot(0), Slot(1, list(range(40)))]
    assert find_source(longer[0], tuple(range(100)), longer, length=128 * 128) is None


def test_what_a_slot_has_itself_is_not_copied() -> None:
    slots = [Slot(0, list(range(35))), Slot(1, list(range(40)))]
    assert find_source(slots[0], tuple(range(100)), slots, length=256) is None


@pytest.mark.process
def test_a_prompt_that_begins_as_a_running_one_copies_the_beginning(engine: LlamaEngine) -> None:
    shared = words(engine, SHARED)
    task = Task((*shared, *chat(engine, "What is the capital of France?")), GREEDY, max_tokens=12)
    alone = answer(engine, task).text
    engine._memory.forget_idle()

    async def scenario() -> tuple[str, Finish]:
        busy = engine.generate(Task((*shared, *chat(engine, "Count.")), GREEDY, grammar=ENDLESS, max_tokens=60))
        async with aclosing(busy) as items:
            await anext(items)
            got = await ask(engine, task)
        return got.text, got.finish

    text, finish = asyncio.run(scenario())
    assert finish.cached_tokens >= SHARED
    assert text == alone


@pytest.mark.process
def test_prompts_that_come_together_read_their_common_beginning_once(engine: LlamaEngine) -> None:
    shared = words(engine, SHARED)
    questions = ("What is the capital of France?", "What is two plus two?", "Name a colour.")
    tasks = [Task((*shared, *chat(engine, question)), GREEDY, max_tokens=6) for question in questions]
    alone = []
    for task in tasks:
        engine._memory.forget_idle()
        alone.append(answer(engine, task).text)
    engine._memory.forget_idle()
    got = answers(engine, *tasks)
    assert [one.text for one in got] == alone
    assert sorted(one.finish.cached_tokens >= SHARED for one in got) == [False, True, True]


@pytest.mark.process
def test_when_the_reader_of_a_common_beginning_leaves_the_next_one_reads_it(engine: LlamaEngine) -> None:
    shared = words(engine, SHARED)

    async def scenario() -> list[str]:
        tasks = [Task((*shared, *chat(engine, q)), GREEDY, max_tokens=6) for q in ("Hi", "What is the capital?", "Yes")]
        asking = [asyncio.create_task(ask(engine, task)) for task in tasks]
        await auntil(lambda: engine.running == 3)
        asking[0].cancel()
        return [got.text for got in await asyncio.gather(*asking[1:])]

    assert all(asyncio.run(scenario()))
    assert engine.running == 0


@pytest.mark.process
def test_what_a_reader_that_leaves_has_read_is_taken_over_by_the_next_for_all(engine: LlamaEngine) -> None:
    shared = words(engine, 230)
    read = engine.measures.prompted

    async def scenario() -> list[Answer]:
        tasks = [Task((*shared, *words(engine, last)), GREEDY, max_tokens=2) for last in (3, 5, 7, 9)]
        asking = [asyncio.create_task(ask(engine, task)) for task in tasks]
        await auntil(lambda: len(engine._slots[0].cells) >= 64)
        asking[0].cancel()
        return list(await asyncio.gather(*asking[1:]))

    cached = [got.finish.cached_tokens for got in asyncio.run(scenario())]
    assert cached[0] >= 64
    assert min(cached[1:]) >= len(shared)
    assert engine.measures.prompted - read <= len(shared) + 3 + 5 + 7 + 9


def test_a_prompt_never_waits_for_one_that_began_after_it() -> None:
    earlier, later = (Slot(number, list(range(40)), generation=_running(), used=number) for number in range(2))
    memory = SlotMemory(cast(LlamaContext, None), (earlier, later), length=256)
    earlier.cells, prompt = [], tuple(range(60))
    assert memory.source(earlier, prompt) is None
    earlier.cells, later.cells = later.cells, []
    assert memory.source(later, prompt) is not None


def _running() -> Generation:
    nothing = (cast(Stream, None), cast(Chooser, None))
    return Generation(Task((1,)), *nothing, prompt=(1,), keep=0, limit=1, text=TextAssembler())


@pytest.mark.process
def test_a_long_conversation_in_an_idle_slot_keeps_its_cells_when_another_begins_like_it(engine: LlamaEngine) -> None:
    shared = words(engine, 60)
    long = Task((*shared, *words(engine, 120)[50:], *chat(engine, "Long")), GREEDY, max_tokens=4)
    answer(engine, long)
    other = answer(engine, Task((*shared, *chat(engine, "What is two plus two? " * 8)), GREEDY, max_tokens=4))
    assert other.finish.cached_tokens >= 60
    assert answer(engine, long).finish.cached_tokens == len(long.prompt) - 1
