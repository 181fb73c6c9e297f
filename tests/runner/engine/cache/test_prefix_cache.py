"""Slots that prompts go to, and prefixes that are copied instead of computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.engine import adapter_turns
from corral_server.runner.engine.cache.kv_cache import KVCache
from corral_server.runner.engine.cache.prefix_cache import choose_slot, find_prefix_source
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.engine.slots import Slot, common_prefix
from corral_server.runner.llama.context import LlamaContext
from tests.runner.engine.fake_llama import BATCH, FakeEngine, make_generation, tokens_alone
from tests.runner.engines import ENDLESS, GREEDY, answer, answers, ask, chat, weights, words

SHARED = 120
BEGINNING = tuple(range(100, 140))


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=4, batch_size=64, threads=1))
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def clear_cache(request: pytest.FixtureRequest) -> None:
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine")._cache.clear_idle_slots()


def test_the_slot_that_holds_most_of_the_prompt_is_chosen() -> None:
    slots = [Slot(0, [1, 2, 9, 9]), Slot(1, [1, 2, 3, 4, 5]), Slot(2)]
    chosen, shared = choose_slot(slots, (1, 2, 3, 4, 6, 7))
    assert (chosen.sequence, shared) == (1, 4)


def test_a_conversation_keeps_its_slot() -> None:
    slots = [Slot(0), Slot(1, list(range(50)), last_used=9)]
    assert choose_slot(slots, tuple(range(80)))[0].sequence == 1


def test_without_a_match_an_empty_slot_is_chosen() -> None:
    slots = [Slot(0, [5, 6, 7], last_used=1), Slot(1)]
    assert choose_slot(slots, (1, 2, 3))[0].sequence == 1


def test_without_a_match_and_an_empty_slot_the_least_recently_used_one_is_chosen() -> None:
    slots = [Slot(0, [5, 6], last_used=3), Slot(1, [7, 8], last_used=1), Slot(2, [9], last_used=2)]
    assert choose_slot(slots, (1, 2))[0].sequence == 1


def test_a_short_common_prefix_does_not_replace_another_conversation() -> None:
    slots = [Slot(0, [1, 2, *range(100, 200)], last_used=5), Slot(1)]
    assert choose_slot(slots, (1, 2, *range(300, 400)))[0].sequence == 1


def test_without_a_match_a_slot_beside_the_running_ones_precedes_a_less_recently_used_one() -> None:
    slots = [Slot(0, [5], last_used=1), Slot(3, [6], last_used=2), Slot(5, [7], last_used=3)]
    assert choose_slot(slots, (1, 2), running={4})[0].sequence == 3, "5 is as near, and used later"
    assert choose_slot(slots[:2], (1, 2), running={2, 4})[0].sequence == 3, "it closes the gap"


def test_slots_that_are_taken_one_after_the_other_leave_no_gap() -> None:
    slots = [Slot(number, [90 + number], last_used=use) for number, use in enumerate((5, 1, 7, 3, 8, 2, 6, 4))]
    running: set[int] = set()
    for number in range(4):
        idle = [slot for slot in slots if slot.sequence not in running]
        running.add(choose_slot(idle, (1, number), running=running)[0].sequence)
    assert max(running) - min(running) == 3


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_the_common_prefix_is_maximal(left: list[int], right: list[int]) -> None:
    length = common_prefix(left, tuple(right))
    assert left[:length] == right[:length]
    assert length in (len(left), len(right)) or left[length] != right[length]


def test_the_longest_common_prefix_in_another_slot_is_the_source() -> None:
    slots = [Slot(0), Slot(1, list(range(40))), Slot(2, list(range(30)))]
    source = find_prefix_source(slots[0], tuple(range(100)), slots, length=256)
    assert source is not None
    assert (source.slot.sequence, source.length, source.is_ready(range(100)), source.is_pending) == (1, 40, True, False)


def test_a_source_is_not_ready_once_its_slot_has_another_adapter() -> None:
    slots = [Slot(0), Slot(1, list(range(40)))]
    source = find_prefix_source(slots[0], tuple(range(100)), slots, length=256)
    assert source is not None
    slots[1].adapter = "x"
    assert not source.is_ready(range(100))


def test_a_slot_of_another_adapter_is_no_source() -> None:
    slots = [Slot(0), Slot(1, list(range(40)), adapter="x")]
    assert find_prefix_source(slots[0], tuple(range(100)), slots, length=256) is None


def test_a_short_common_prefix_is_computed_again() -> None:
    slots = [Slot(0), Slot(1, list(range(10)))]
    assert find_prefix_source(slots[0], tuple(range(100)), slots, length=256) is None
    longer = [Slot(0), Slot(1, list(range(40)))]
    assert find_prefix_source(longer[0], tuple(range(100)), longer, length=128 * 128) is None


def test_a_prefix_that_the_slot_itself_holds_is_not_copied() -> None:
    slots = [Slot(0, list(range(35))), Slot(1, list(range(40)))]
    assert find_prefix_source(slots[0], tuple(range(100)), slots, length=256) is None


def test_a_prompt_never_waits_for_a_generation_that_began_later() -> None:
    earlier, later = (
        Slot(number, list(range(40)), generation=make_generation(GenerationTask((1,))), last_used=number)
        for number in range(2)
    )
    cache = KVCache(cast(LlamaContext, None), (earlier, later), length=256, can_truncate=True)
    earlier.tokens, prompt = [], tuple(range(60))
    assert cache.find_prefix(earlier, prompt) is None
    earlier.tokens, later.tokens = later.tokens, []
    assert cache.find_prefix(later, prompt) is not None


def test_when_a_generation_is_cancelled_the_next_takes_over_its_prefix_for_all() -> None:
    engine = FakeEngine()
    first, *others = [engine.submit(GenerationTask((*BEGINNING, last), max_tokens=2)) for last in (1, 2, 3)]
    engine.run_until(lambda: len(engine.slots[0].tokens) >= BATCH)
    first.stream.closed = True
    engine.run_until(lambda: not engine.busy)
    assert others[0].cached_tokens >= BATCH
    assert others[1].cached_tokens == len(BEGINNING)
    assert engine.scheduler.metrics.prompt_tokens == len(BEGINNING) + 2


def test_a_slot_that_another_adapter_takes_over_is_no_source_for_a_prompt_that_waited_for_it() -> None:
    """The third prompt waits for the second's cells; their slot goes to the fourth, which has the first's adapter."""
    engine = FakeEngine()
    options = [("x", 60), ("", 1), ("", 5), ("x", 5)]
    tasks = [
        GenerationTask((*BEGINNING, last), max_tokens=count, adapter=name) for last, (name, count) in enumerate(options)
    ]
    with patch.object(adapter_turns, "TURN_SECONDS", 0.0):
        generations = [engine.submit(tasks[0])]
        engine.run_until(lambda: bool(generations[0].generated_tokens))
        generations += [engine.submit(task) for task in tasks[1:]]
        engine.run_until(lambda: not engine.busy)
        expected = [tokens_alone(task) for task in tasks]
    assert [tuple(generation.generated_tokens) for generation in generations] == expected


@pytest.mark.process
async def test_a_prompt_copies_its_prefix_from_a_running_generation(engine: LlamaEngine) -> None:
    shared = words(engine, SHARED)
    task = GenerationTask((*shared, *chat(engine, "What is the capital of France?")), GREEDY, max_tokens=12)
    alone = (await ask(engine, task)).text
    engine._cache.clear_idle_slots()
    running = GenerationTask((*shared, *chat(engine, "Count.")), GREEDY, grammar=ENDLESS, max_tokens=60)
    async with aclosing(engine.generate(running)) as items:
        await anext(items)
        got = await ask(engine, task)
    assert got.result.cached_tokens >= SHARED
    assert got.text == alone


@pytest.mark.process
def test_prompts_that_arrive_together_compute_their_common_prefix_once(engine: LlamaEngine) -> None:
    shared = words(engine, SHARED)
    questions = ("What is the capital of France?", "What is two plus two?", "Name a colour.")
    tasks = [GenerationTask((*shared, *chat(engine, question)), GREEDY, max_tokens=6) for question in questions]
    alone = []
    for task in tasks:
        engine._cache.clear_idle_slots()
        alone.append(answer(engine, task).text)
    engine._cache.clear_idle_slots()
    got = answers(engine, *tasks)
    assert [one.text for one in got] == alone
    assert sorted(one.result.cached_tokens >= SHARED for one in got) == [False, True, True]


@pytest.mark.process
def test_a_long_conversation_in_an_idle_slot_keeps_its_cells(engine: LlamaEngine) -> None:
    shared = words(engine, 60)
    long = GenerationTask((*shared, *words(engine, 120)[50:], *chat(engine, "Long")), GREEDY, max_tokens=4)
    answer(engine, long)
    short = GenerationTask((*shared, *chat(engine, "What is two plus two? " * 8)), GREEDY, max_tokens=4)
    assert answer(engine, short).result.cached_tokens >= 60
    assert answer(engine, long).result.cached_tokens == len(long.prompt) - 1
