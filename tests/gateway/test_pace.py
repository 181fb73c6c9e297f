"""Retry-After from what was seen to finish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from corral_server.gateway.directory import Endpoint
from corral_server.gateway.queue import Queue
from corral_server.gateway.routing.pace import LONGEST, UNKNOWN, Pace


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def measured(scenario: Callable[[Queue, Pace, Clock], None]) -> None:
    async def body() -> None:
        queue, clock = Queue(100), Clock()
        asyncio.get_running_loop().time = clock  # type: ignore[method-assign]  # the test's own loop
        pace = Pace(queue)
        try:
            scenario(queue, pace, clock)
        finally:
            pace.close()

    asyncio.run(body())


def fill(queue: Queue, key: str, waiting: int) -> None:
    for _ in range(waiting + 1):
        queue.enter(key, (Endpoint(f"runner of {key}", "127.0.0.1", 1, 1),), since=0)


def serve(queue: Queue, key: str, number: int) -> None:
    """So many requests end, each followed by another that waits."""
    line = dict(queue.lines())[key]
    endpoints = tuple(place.endpoint for place in line.places.values())
    for _ in range(number):
        running = queue.enter(key, endpoints, since=0)
        line.waiting.move_to_end(running, last=False)
        line.ended += 1
        queue.close(running)


def test_nothing_is_known_before_anything_finished() -> None:
    def scenario(queue: Queue, pace: Pace, clock: Clock) -> None:
        fill(queue, "a", 3)
        pace.waiting()
        assert pace.retry_after("a") == UNKNOWN
        clock.now += 100
        assert pace.retry_after("a") == UNKNOWN

    measured(scenario)


def test_it_is_the_time_that_the_line_takes() -> None:
    def scenario(queue: Queue, pace: Pace, clock: Clock) -> None:
        fill(queue, "a", 7)
        pace.waiting()
        serve(queue, "a", 20)
        clock.now += 10
        assert pace.retry_after("a") == 4, "7 wait, and 2 finish in a second"

    measured(scenario)


def test_a_model_of_which_nothing_finished_is_judged_by_all() -> None:
    def scenario(queue: Queue, pace: Pace, clock: Clock) -> None:
        fill(queue, "a", 5)
        fill(queue, "b", 5)
        pace.waiting()
        serve(queue, "a", 10)
        clock.now += 5
        assert pace.retry_after("b") == 5, "10 wait in all, and 2 finish in a second"

    measured(scenario)


def test_it_is_at_least_a_second_and_at_most_a_minute() -> None:
    def scenario(queue: Queue, pace: Pace, clock: Clock) -> None:
        fill(queue, "a", 1)
        fill(queue, "b", 90)
        pace.waiting()
        serve(queue, "a", 1000)
        serve(queue, "b", 1)
        clock.now += 10
        assert pace.retry_after("a") == 1
        assert pace.retry_after("b") == LONGEST

    measured(scenario)
