"""Work queue: no key is lost, and none is processed twice at once."""

from __future__ import annotations

import asyncio

from corral_operator.reconcile.work_queue import WorkQueue


async def test_a_key_added_twice_is_returned_once() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    third = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not third.done()
    third.cancel()


async def test_a_key_added_during_processing_is_returned_again_after_done() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")
    assert await queue.get() == "a"


async def test_a_delayed_key_keeps_the_earliest_time() -> None:
    queue = WorkQueue()
    queue.add_after("a", 3600)
    queue.add_after("a", 0.01)
    queue.add_after("a", 1800)
    assert await queue.get() == "a"


async def test_a_delayed_key_that_is_added_is_returned_at_once_and_only_once() -> None:
    queue = WorkQueue()
    queue.add_after("a", 0.02)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    again = asyncio.create_task(queue.get())
    done, _ = await asyncio.wait({again}, timeout=0.1)
    assert not done
    again.cancel()


async def test_retry_delays_grow_up_to_a_limit_and_start_again_after_forget() -> None:
    queue = WorkQueue()
    delays = [queue.add_rate_limited("a") for _ in range(12)]
    queue.forget("a")
    first = queue.add_rate_limited("a")
    queue.close()
    assert delays == sorted(delays)
    assert (delays[0], delays[-1], first) == (0.1, 30.0, 0.1)


async def test_an_urgent_key_is_returned_before_the_others() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "c"):
        queue.add(key)
    queue.add("c", urgent=True)
    queue.add("d", urgent=True)
    assert [await queue.get() for _ in range(4)] == ["c", "d", "a", "b"]
    assert queue.depth == 0


async def test_a_key_that_becomes_urgent_in_processing_is_returned_first_after_done() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("b")
    queue.add("a")
    queue.add("a", urgent=True)
    queue.done("a")
    assert [await queue.get(), await queue.get()] == ["a", "b"]


async def test_a_key_that_was_urgent_once_waits_its_turn_the_next_time() -> None:
    queue = WorkQueue()
    queue.add("a")
    queue.add("a", urgent=True)
    assert await queue.get() == "a"
    queue.done("a")
    queue.add("b", urgent=True)
    queue.add("a")
    assert [await queue.get(), await queue.get()] == ["b", "a"]
    assert queue.depth == 0


async def test_urgent_keys_do_not_starve_the_others() -> None:
    queue = WorkQueue()
    queue.add("ordinary")
    taken: list[str] = []
    while "ordinary" not in taken:
        queue.add(f"urgent-{len(taken)}", urgent=True)
        taken.append(await queue.get())
    assert 2 <= len(taken) <= 10
