"""Retry-After estimate from completed requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.queueing.queue import RequestQueue
from corral_server.gateway.queueing.retry_after import DEFAULT_RETRY_AFTER, MAX_RETRY_AFTER, RetryAfterEstimator


class Clock:
    """Clock that the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def measured(scenario: Callable[[RequestQueue, RetryAfterEstimator, Clock], None]) -> None:
    async def body() -> None:
        queue, clock = RequestQueue(100), Clock()
        asyncio.get_running_loop().time = clock  # type: ignore[method-assign]  # the test's own loop
        estimator = RetryAfterEstimator(queue)
        try:
            scenario(queue, estimator, clock)
        finally:
            estimator.close()

    asyncio.run(body())


def fill(queue: RequestQueue, key: str, waiting: int) -> None:
    for _ in range(waiting + 1):
        queue.submit(key, (Endpoint(f"runner of {key}", "127.0.0.1", 1, 1),), arrived_at=0)


def serve(queue: RequestQueue, key: str, number: int) -> None:
    """Finish ``number`` requests, each replaced by another pending one."""
    line = dict(queue.model_queues())[key]
    endpoints = tuple(place.endpoint for place in line.endpoints.values())
    for _ in range(number):
        running = queue.submit(key, endpoints, arrived_at=0)
        line.completed += 1
        queue.finish(running)


def test_the_default_applies_before_the_first_completed_request() -> None:
    def scenario(queue: RequestQueue, estimator: RetryAfterEstimator, clock: Clock) -> None:
        fill(queue, "a", 3)
        estimator.start_sampling()
        assert estimator.retry_after("a") == DEFAULT_RETRY_AFTER
        clock.now += 100
        assert estimator.retry_after("a") == DEFAULT_RETRY_AFTER

    measured(scenario)


def test_the_estimate_is_the_queue_length_divided_by_the_completion_rate() -> None:
    def scenario(queue: RequestQueue, estimator: RetryAfterEstimator, clock: Clock) -> None:
        fill(queue, "a", 7)
        estimator.start_sampling()
        serve(queue, "a", 20)
        clock.now += 10
        assert estimator.retry_after("a") == 4, "7 wait, and 2 finish in a second"

    measured(scenario)


def test_a_model_without_completed_requests_uses_the_rate_of_all_models() -> None:
    def scenario(queue: RequestQueue, estimator: RetryAfterEstimator, clock: Clock) -> None:
        fill(queue, "a", 5)
        fill(queue, "b", 5)
        estimator.start_sampling()
        serve(queue, "a", 10)
        clock.now += 5
        assert estimator.retry_after("b") == 5, "10 wait in all, and 2 finish in a second"

    measured(scenario)


def test_the_estimate_is_between_one_second_and_one_minute() -> None:
    def scenario(queue: RequestQueue, estimator: RetryAfterEstimator, clock: Clock) -> None:
        fill(queue, "a", 1)
        fill(queue, "b", 90)
        estimator.start_sampling()
        serve(queue, "a", 1000)
        serve(queue, "b", 1)
        clock.now += 10
        assert estimator.retry_after("a") == 1
        assert estimator.retry_after("b") == MAX_RETRY_AFTER

    measured(scenario)
