"""Health: alive while the workers make progress, ready as the leader or a standby."""

from __future__ import annotations

import asyncio

import pytest

from corral_operator.process.health import STALL_TIMEOUT, Health, ProbeResult
from corral_operator.reconcile.work_queue import WorkQueue


class LoopTime:
    """The time of the running event loop, which ``advance`` moves forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        real, self._offset = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: real() + self._offset)

    def advance(self, seconds: float) -> None:
        self._offset += seconds


@pytest.fixture
async def loop_time(monkeypatch: pytest.MonkeyPatch) -> LoopTime:
    return LoopTime(monkeypatch)


@pytest.fixture
def queue() -> WorkQueue:
    return WorkQueue()


@pytest.fixture
def health(queue: WorkQueue) -> Health:
    leading = Health()
    leading.begin_election(queue, lambda: False)
    leading.begin_leading()
    return leading


async def test_an_operator_without_work_is_alive(health: Health, loop_time: LoopTime) -> None:
    loop_time.advance(10 * STALL_TIMEOUT)
    assert health.alive().healthy


async def test_a_stalled_worker_is_reported_although_another_makes_progress(
    health: Health, queue: WorkQueue, loop_time: LoopTime
) -> None:
    queue.add("lab/one")
    await queue.get()
    queue.add("lab/two")
    loop_time.advance(STALL_TIMEOUT - 1)
    assert health.alive().healthy
    await queue.get()
    queue.done("lab/two")
    loop_time.advance(2)
    assert health.alive() == ProbeResult(False, "no progress for 181 s")
    queue.done("lab/one")
    assert health.alive().healthy


async def test_models_that_no_worker_takes_are_reported(health: Health, queue: WorkQueue, loop_time: LoopTime) -> None:
    loop_time.advance(10 * STALL_TIMEOUT)
    queue.add("lab/one")
    assert health.alive().healthy
    loop_time.advance(STALL_TIMEOUT + 1)
    assert not health.alive().healthy


async def test_a_long_queue_that_moves_is_healthy(health: Health, queue: WorkQueue, loop_time: LoopTime) -> None:
    for number in range(5):
        queue.add(f"lab/{number}")
    for _ in range(5):
        loop_time.advance(STALL_TIMEOUT - 1)
        assert health.alive().healthy
        queue.done(await queue.get())


def test_a_replica_is_ready_as_leader_or_standby(queue: WorkQueue) -> None:
    health = Health()
    other_leader: list[str] = []
    assert health.ready() == ProbeResult(False, "starting")
    health.begin_election(queue, lambda: bool(other_leader))
    assert not health.ready().healthy
    other_leader.append("another replica")
    assert health.ready() == ProbeResult(True, "standby: another replica is the leader")
    health.begin_leading()
    assert health.ready() == ProbeResult(True, "leader")
    health.end_term()
    assert not health.ready().healthy
    assert health.alive().healthy
