"""Failures inside the engine end the task that they belong to and no other."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.errors import EngineFailed
from corral_server.runner.sampling.grammar import Grammar
from tests.runner.engines import CONTEXT, ENDLESS, GREEDY, answer, answers, ask, ask_all, chat, weights, words
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import auntil

pytestmark = pytest.mark.process


def test_a_failed_decode_ends_its_task_and_not_the_engine(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    task = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "decode", lambda: -3)
        with pytest.raises(EngineFailed):
            answer(engine, task)
    assert "Paris" in answer(engine, task).text


def test_an_exception_in_a_step_ends_its_tasks_and_not_the_engine(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> int:
        raise ZeroDivisionError("broken")

    task = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "decode", broken)
        with pytest.raises(EngineFailed, match="broken"):
            answer(engine, task)
    assert "Paris" in answer(engine, task).text
    assert engine.stalled_for == 0.0


async def test_a_result_is_delivered_although_the_same_step_fails_later(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = GenerationTask(words(engine, CONTEXT - 2), GREEDY, grammar=ENDLESS, context_shift=False)
    endless = GenerationTask(chat(engine, "Count."), GREEDY, grammar=ENDLESS)
    before, compact = engine.metrics.finished["length"], engine._cache.compact

    def fail_after_the_result() -> None:
        if engine.metrics.finished["length"] > before:
            raise ZeroDivisionError("broken")
        compact()

    with monkeypatch.context() as patch:
        patch.setattr(engine._cache, "compact", fail_after_the_result)
        other = asyncio.create_task(ask(engine, endless))
        await auntil(lambda: engine.running == 1)
        async with asyncio.timeout(60):
            assert (await ask(engine, full)).result.reason == "length"
            with pytest.raises(EngineFailed, match="broken"):
                await other
    assert engine.running == 0


async def test_a_sequence_that_fails_its_batch_does_not_fail_the_others(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = words(engine, 3)
    decode, add_tokens = engine._context.decode, engine._context.add_tokens
    poisoned = threading.local()

    def watch_tokens(sequence: int, position: int, tokens: list[int], *, outputs: int) -> int:
        poisoned.yes = getattr(poisoned, "yes", False) or tuple(tokens) == poison
        return add_tokens(sequence, position, tokens, outputs=outputs)

    def fail_poisoned() -> int:
        bad, poisoned.yes = getattr(poisoned, "yes", False), False
        return -1 if bad else decode()

    good = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "add_tokens", watch_tokens)
        patch.setattr(engine._context, "decode", fail_poisoned)
        results = await asyncio.gather(
            ask(engine, good), ask(engine, GenerationTask(poison, GREEDY)), return_exceptions=True
        )
    assert "Paris" in getattr(results[0], "text", "")
    assert isinstance(results[1], EngineFailed)


def test_without_room_in_the_cache_idle_slots_are_cleared(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    task = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    answer(engine, task)
    decode, refusals = engine._context.decode, [1]
    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "decode", lambda: refusals.pop() if refusals else decode())
        assert "Paris" in answer(engine, GenerationTask(chat(engine, "Which city is France's capital?"), GREEDY)).text
    assert sum(bool(slot.tokens) for slot in engine._slots) == 1


def test_all_slots_fill_their_contexts_at_once_and_none_waits_for_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle slot has room for any prompt and its whole answer, whatever the others hold."""
    engine = LlamaEngine.load(
        write_tiny_model(tmp_path), EngineOptions(context_length=128, slots=4, batch_size=64, threads=1)
    )
    statuses, decode = set[int](), engine._context.decode

    def decode_watched() -> int:
        statuses.add(status := decode())
        return status

    monkeypatch.setattr(engine._context, "decode", decode_watched)
    try:
        prompts = [
            tuple(engine.tokenize(letter * 120, add_special=False, parse_special=False)) for letter in "abcdefgh"
        ]
        got = answers(
            engine,
            *(GenerationTask(p, GREEDY, grammar=Grammar("start: /[a-z]+/"), context_shift=False) for p in prompts),
        )
        assert {(one.result.reason, len(one.result.tokens)) for one in got} == {("length", 9)}
        assert (statuses, engine._cache.cells_used) == ({0}, 4 * 128)
    finally:
        engine.close()


async def test_closing_fails_running_and_waiting_tasks() -> None:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=1, threads=1))
    endless = GenerationTask(chat(engine, "Count."), GREEDY, grammar=ENDLESS)
    tasks = [asyncio.create_task(ask(engine, endless)) for _ in range(3)]
    await auntil(lambda: engine.waiting == 2)
    await asyncio.to_thread(engine.close)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [EngineFailed] * 3
    for task in (GenerationTask((1,), GREEDY), endless):
        with pytest.raises(EngineFailed):
            await ask(engine, task)
    for use in (
        lambda: engine.tokenize("text", add_special=False, parse_special=False),
        lambda: engine.detokenize([1]),
        lambda: engine.chat_template,
    ):
        with pytest.raises(EngineFailed):
            use()
    engine.close()
    assert engine.stalled_for == float("inf")


async def test_a_request_can_be_cancelled_while_its_grammar_compiles(engine: LlamaEngine) -> None:
    request = asyncio.create_task(ask(engine, GenerationTask(chat(engine, "Hi"), GREEDY, grammar=ENDLESS)))
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (engine.running, engine.waiting) == (0, 0)


async def test_memory_that_cannot_remove_a_part_is_computed_again(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    remove_cells, decode = engine._context.remove_cells, engine._context.decode
    statuses = [0, 0, -3]

    def remove_whole_only(sequence: int, start: int = 0, end: int = -1) -> bool:
        return remove_cells(sequence) if (start, end) == (0, -1) else False

    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "remove_cells", remove_whole_only)
        patch.setattr(engine._context, "decode", lambda: (statuses.pop(0) if statuses else 0) or decode())
        assert all("Paris" in got.text for got in await ask_all(engine, task, task))


def test_an_error_in_admission_is_reported_to_its_task(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise MemoryError("no memory")

    task = GenerationTask(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    with monkeypatch.context() as patch:
        patch.setattr(engine._cache, "truncate", broken)
        with pytest.raises(EngineFailed, match="no memory"):
            answer(engine, task)
    assert "Paris" in answer(engine, task).text
