"""Steps of the batch scheduler over a fake context."""

from __future__ import annotations

import time
from typing import NoReturn

import pytest

from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.llama.errors import EngineFailed
from tests.runner.engine.fake_llama import ABORTED, CONTEXT, FakeEngine, FakeSampler, tokens_alone


def test_an_error_in_one_slots_sampler_does_not_lose_the_results_of_the_others() -> None:
    engine, broken = FakeEngine(), FakeSampler()
    tasks = [GenerationTask(tuple(range(start, start + 9)), max_tokens=20) for start in (100, 200, 300)]
    good = [engine.submit(task) for task in tasks[:2]]
    bad = engine.submit(tasks[2], broken)
    engine.run_until(lambda: bool(bad.generated_tokens))
    broken.error = ZeroDivisionError("broken")
    engine.run_until(lambda: not engine.busy)
    assert isinstance(engine.ended[bad], EngineFailed)
    assert broken.closed
    for generation, task in zip(good, tasks, strict=False):
        assert isinstance(engine.ended[generation], GenerationResult)
        assert tuple(generation.generated_tokens) == tokens_alone(task)
    assert [cell.token for cell in engine.context.sequences[2]] == engine.slots[2].tokens


def test_an_error_while_one_slot_is_prepared_does_not_lose_the_result_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both contexts are full in the same step: the first generation ends, and the shift of the second fails."""

    def broken(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError("broken")

    engine = FakeEngine()
    full = [
        engine.submit(GenerationTask(tuple(range(start, start + CONTEXT - 1)), max_tokens=90, context_shift=shift))
        for start, shift in ((100, False), (200, True))
    ]
    other = engine.submit(GenerationTask((300, 301, 302), max_tokens=90, context_shift=False))
    monkeypatch.setattr(engine.context, "shift_cells", broken)
    engine.run_until(lambda: not engine.busy)
    ended = [engine.ended[generation] for generation in (*full, other)]
    assert [type(one) for one in ended] == [GenerationResult, EngineFailed, GenerationResult]
    assert tuple(other.generated_tokens) == tokens_alone(other.task)


def test_an_error_of_the_step_itself_leaves_the_results_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    full = engine.submit(GenerationTask(tuple(range(CONTEXT - 1)), max_tokens=90, context_shift=False))
    other = engine.submit(GenerationTask((300, 301, 302), max_tokens=90))
    engine.run_until(lambda: len(engine.slots[0].tokens) == CONTEXT and engine.slots[1].generation is not None)

    def broken() -> NoReturn:
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(engine.context, "decode", broken)
    with pytest.raises(ZeroDivisionError):
        engine.step()
    assert isinstance(engine.ended[full], GenerationResult)
    assert engine.slots[1].generation is other


def test_a_decode_that_fails_at_once_does_not_change_the_prefill_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, now = FakeEngine(batch=64), [0.0]
    decode = engine.context.decode

    def timed_decode() -> int:
        """A second for a batch, no time at all for one that fails."""
        now[0] += 1e-6 if engine.context.next_status else 1.0
        return decode()

    monkeypatch.setattr(engine.context, "decode", timed_decode)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    engine.submit(GenerationTask(tuple(range(50)), max_tokens=1))
    engine.run_until(lambda: not engine.busy)
    before = engine.scheduler.prefill_budget.tokens_per_step(streaming=True)
    failed = engine.submit(GenerationTask(tuple(range(100, 150)), max_tokens=1))
    engine.context.next_status = ABORTED
    engine.run_until(lambda: not engine.busy)
    assert isinstance(engine.ended[failed], EngineFailed)
    assert engine.scheduler.prefill_budget.tokens_per_step(streaming=True) == before
