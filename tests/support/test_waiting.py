"""Waiting ends with the result, or with an error that names the condition."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.waiting import auntil, until


def _counting() -> Iterator[int]:
    yield from range(100)


def test_the_first_true_result_is_returned() -> None:
    counter = _counting()
    assert until(lambda: next(counter) == 3 and "three") == "three"


def test_a_failed_assertion_is_evaluated_again() -> None:
    counter = _counting()

    def condition() -> bool:
        assert next(counter) == 3
        return True

    assert until(condition)


def test_the_error_at_the_deadline_names_the_condition() -> None:
    with pytest.raises(AssertionError, match=r"the pod did not come true in 0\.02 s"):
        until(lambda: False, timeout=0.02, what="the pod")


def test_other_errors_are_raised_at_once() -> None:
    def condition() -> bool:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        until(condition, timeout=5)


async def test_coroutines_wait_for_plain_and_async_conditions() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, done.set)
    assert await auntil(done.is_set)

    async def answer() -> str:
        return "yes"

    assert await auntil(answer) == "yes"
    with pytest.raises(AssertionError, match="the answer"):
        await auntil(lambda: False, timeout=0.02, what="the answer")
