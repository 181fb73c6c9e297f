"""What goes wrong inside the engine ends the request it belongs to, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import EngineFailed, Task
from tests.runner.engines import GREEDY, answer, answers, ask, chat, weights, words
from tests.support.tiny_model import write
from tests.support.waiting import auntil

pytestmark = pytest.mark.process

CONTEXT = 256
ENDLESS = "root ::= [a-z ] root"


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=4, batch=128, threads=1))
    yield engine
    engine.close()


def test_a_decode_that_fails_ends_its_request_and_not_the_engine(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "decode", lambda: -3)
        with pytest.raises(EngineFailed):
            answer(engine, task)
    assert "Paris" in answer(engine, task).text


def test_a_step_that_raises_ends_its_requests_and_not_the_engine(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> int:
        raise ZeroDivisionError("broken")

    task = Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "decode", broken)
        with pytest.raises(EngineFailed, match="broken"):
            answer(engine, task)
    assert "Paris" in answer(engine, task).text
    assert engine.stalled_for == 0.0


def test_one_bad_sequence_does_not_fail_the_others_of_its_batch(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = words(engine, 3)
    decode, add = engine._context.decode, engine._context.add
    poisoned = threading.local()

    def add_watched(sequence: int, position: int, tokens: list[int], *, outputs: int) -> int:
        poisoned.yes = getattr(poisoned, "yes", False) or tuple(tokens) == poison
        return add(sequence, position, tokens, outputs=outputs)

    def decode_watched() -> int:
        bad, poisoned.yes = getattr(poisoned, "yes", False), False
        return -1 if bad else decode()

    async def both() -> list[object]:
        good = Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
        return list(await asyncio.gather(ask(engine, good), ask(engine, Task(poison, GREEDY)), return_exceptions=True))

    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "add", add_watched)
        patch.setattr(engine._context, "decode", decode_watched)
        good, bad = asyncio.run(both())
    assert "Paris" in getattr(good, "text", "")
    assert isinstance(bad, EngineFailed)


def test_a_cache_without_room_takes_it_from_idle_slots(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    answer(engine, task)
    decode, refusals = engine._context.decode, [1]
    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "decode", lambda: refusals.pop() if refusals else decode())
        assert "Paris" in answer(engine, Task(chat(engine, "Which city is France's capital?"), GREEDY)).text
    assert sum(bool(slot.cells) for slot in engine._slots) == 1


def test_all_slots_fill_their_windows_at_once_and_none_waits_for_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A free slot is room for any prompt and its whole answer, whatever the others hold."""
    engine = LlamaEngine.load(write(tmp_path), EngineOptions(context_length=128, slots=4, batch=64, threads=1))
    statuses, decode = set[int](), engine._context.decode

    def decode_watched() -> int:
        statuses.add(status := decode())
        return status

    monkeypatch.setattr(engine._context, "decode", decode_watched)
    try:
        prompts = [
            tuple(engine.tokenize(letter * 120, add_special=False, parse_special=False)) for letter in "abcdefgh"
        ]
        got = answers(engine, *(Task(p, GREEDY, grammar="root ::= [a-z]+", shift=False) for p in prompts))
        assert {(one.finish.reason, len(one.finish.generated)) for one in got} == {("length", 9)}
        assert (statuses, engine.cells_in_use) == ({0}, 4 * 128)
    finally:
        engine.close()


def test_closing_fails_what_runs_and_what_waits() -> None:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=CONTEXT, slots=1, threads=1))

    async def scenario() -> list[object]:
        endless = Task(chat(engine, "Count."), GREEDY, grammar=ENDLESS)
        tasks = [asyncio.create_task(ask(engine, endless)) for _ in range(3)]
        await auntil(lambda: engine.waiting == 2)
        await asyncio.to_thread(engine.close)
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    assert [type(result) for result in asyncio.run(scenario())] == [EngineFailed] * 3
    for use in (
        lambda: answer(engine, Task((1,), GREEDY)),
        lambda: answer(engine, Task((1,), GREEDY, grammar=ENDLESS)),
        lambda: engine.tokenize("text", add_special=False, parse_special=False),
        lambda: engine.detokenize([1]),
        lambda: engine.chat_template,
    ):
        with pytest.raises(EngineFailed):
            use()
    engine.close()
    assert engine.stalled_for == float("inf")


def test_a_reader_that_leaves_while_its_grammar_compiles_leaves_nothing_behind(engine: LlamaEngine) -> None:
    async def scenario() -> None:
        asking = asyncio.create_task(ask(engine, Task(chat(engine, "Hi"), GREEDY, grammar=ENDLESS)))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scenario())
    assert (engine.running, engine.waiting) == (0, 0)


def test_memory_that_cannot_forget_a_part_is_read_again(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    remove, decode = engine._context.remove, engine._context.decode
    statuses = [0, 0, -3]

    def whole_only(sequence: int, start: int = 0, end: int = -1) -> bool:
        return remove(sequence) if (start, end) == (0, -1) else False

    async def two() -> list[str]:
        return [got.text for got in await asyncio.gather(ask(engine, task), ask(engine, task))]

    with monkeypatch.context() as patch:
        patch.setattr(engine._context, "remove", whole_only)
        patch.setattr(engine._context, "decode", lambda: (statuses.pop(0) if statuses else 0) or decode())
        assert all("Paris" in text for text in asyncio.run(two()))


def test_a_task_that_fails_to_begin_is_told(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise MemoryError("no memory")

    task = Task(chat(engine, "What is the capital of France?"), GREEDY, max_tokens=24)
    with monkeypatch.context() as patch:
        patch.setattr(engine._memory, "keep", broken)
        with pytest.raises(EngineFailed, match="no memory"):
            answer(engine, task)
    assert "Paris" in answer(engine, task).text
