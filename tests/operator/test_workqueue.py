"""The keyed queue: nothing is lost, nothing is handled twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from corral_operator.workqueue import WorkQueue


def run(coroutine: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 10))


def test_a_key_added_twice_is_handed_out_once() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        for key in ("a", "b", "a"):
            queue.add(key)
        assert [await queue.get(), await queue.get()] == ["a", "b"]
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()

    run(scenario())


def test_a_key_added_while_worked_on_comes_again_after_done_and_not_before() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("b")
        assert await queue.get() == "b"
        queue.done("a")
        assert await queue.get() == "a"

    run(scenario())


def test_a_delayed_key_comes_at_the_earlier_of_two_times() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.add_after("a", 3600)
        queue.add_after("a", 0.01)
        queue.add_after("a", 1800)
        assert await queue.get() == "a"

    run(scenario())


def test_adding_a_delayed_key_hands_it_out_at_once_and_only_once() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        queue.add_after("a", 0.02)
        queue.add("a")
        assert await queue.get() == "a"
        queue.done("a")
        again = asyncio.create_task(queue.get())
        done, _ = await asyncio.wait({again}, timeout=0.1)
        assert not done
        again.cancel()

    run(scenario())


def test_retries_grow_longer_up_to_a_limit_and_success_starts_over() -> None:
    async def scenario() -> None:
        queue = WorkQueue()
        delays = [queue.retry("a") for _ in range(12)]
        queue.succeeded("a")
        first = queue.retry("a")
        queue.close()
        assert delays == sorted(delays)
        assert (delays[0], delays[-1], first) == (0.1, 30.0, 0.1)

    run(scenario())
