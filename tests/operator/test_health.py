"""What the operator says of itself: alive while its workers get on, ready while it acts or stands by."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from corral_operator.health import STUCK, Health, Verdict
from corral_operator.workqueue import WorkQueue


class Loop(asyncio.SelectorEventLoop):
    """One whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


@contextmanager
def acting() -> Iterator[tuple[Health, WorkQueue, asyncio.Runner, Loop]]:
    loop = Loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
        health, queue = Health(), WorkQueue()
        health.begin(queue, lambda: False)
        health.act()
        yield health, queue, runner, loop


async def later(health: Health, loop: Loop, seconds: float) -> Verdict:
    loop.ahead += seconds
    return health.alive()


def test_an_operator_with_nothing_to_do_is_alive() -> None:
    with acting() as (health, _, runner, loop):
        assert runner.run(later(health, loop, 10 * STUCK)).good


def test_a_worker_that_sits_on_one_model_is_told() -> None:
    async def scenario(health: Health, queue: WorkQueue, loop: Loop) -> None:
        queue.add("lab/one")
        await queue.get()
        queue.add("lab/two")
        assert (await later(health, loop, STUCK - 1)).good
        await queue.get()
        queue.done("lab/two")  # another worker gets on, and does not hide it
        verdict = await later(health, loop, 2)
        assert verdict == Verdict(False, "no progress for 181 s")
        queue.done("lab/one")
        assert health.alive().good

    with acting() as (health, queue, runner, loop):
        runner.run(scenario(health, queue, loop))


def test_models_that_nobody_takes_are_told() -> None:
    async def scenario(health: Health, queue: WorkQueue, loop: Loop) -> None:
        loop.ahead += 10 * STUCK
        queue.add("lab/one")
        assert health.alive().good
        assert not (await later(health, loop, STUCK + 1)).good

    with acting() as (health, queue, runner, loop):
        runner.run(scenario(health, queue, loop))


def test_a_long_line_that_moves_is_well() -> None:
    async def scenario(health: Health, queue: WorkQueue, loop: Loop) -> None:
        for number in range(5):
            queue.add(f"lab/{number}")
        for _ in range(5):
            assert (await later(health, loop, STUCK - 1)).good
            queue.done(await queue.get())

    with acting() as (health, queue, runner, loop):
        runner.run(scenario(health, queue, loop))


def test_it_is_ready_when_it_acts_or_stands_by() -> None:
    health = Health()
    seen: list[str] = []
    assert health.ready() == Verdict(False, "starting")
    health.begin(WorkQueue(), lambda: bool(seen))
    assert not health.ready().good
    seen.append("another operator")
    assert health.ready() == Verdict(True, "standing by: another operator acts")
    health.act()
    assert health.ready() == Verdict(True, "acting")
    health.end()
    assert not health.ready().good
    assert health.alive().good
