"""Waiting for a condition with a deadline, so that no test sleeps for a fixed time or waits without limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

INTERVAL = 0.01
"""Seconds between two evaluations of the condition; expensive conditions take a longer interval."""


def until(
    condition: Callable[[], T | None], timeout: float = 10.0, *, what: str = "the condition", interval: float = INTERVAL
) -> T:
    """Evaluate ``condition`` until it is true and return its result; raise AssertionError after ``timeout`` seconds.

    A condition may raise AssertionError with what is missing; it is evaluated again.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            result = condition()
            missing = None
        except AssertionError as error:
            result, missing = None, error
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {timeout:g} s (last: {result!r})") from missing
        time.sleep(interval)


@overload
async def auntil(
    condition: Callable[[], Awaitable[T | None]], timeout: float = 10.0, *, what: str = "the condition"
) -> T: ...
@overload
async def auntil(condition: Callable[[], T | None], timeout: float = 10.0, *, what: str = "the condition") -> T: ...
async def auntil(
    condition: Callable[[], T | None] | Callable[[], Awaitable[T | None]],
    timeout: float = 10.0,
    *,
    what: str = "the condition",
) -> T:
    """Do the same as ``until`` in a coroutine; the condition is a plain or an async function."""
    deadline = time.monotonic() + timeout
    while True:
        missing = None
        try:
            answer = condition()
            result = await answer if isinstance(answer, Awaitable) else answer
        except AssertionError as error:
            result, missing = None, error
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {timeout:g} s (last: {result!r})") from missing
        await asyncio.sleep(INTERVAL)
