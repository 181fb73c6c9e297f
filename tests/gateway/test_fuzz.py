"""A short run of what bench/fuzz_gateway.py runs for long: bytes that a client may send, and nothing breaks."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fuzz_gateway import Fuzz
from tests.support.gateway import run

CASES = 1500


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20, 21])
def test_whatever_is_sent_nothing_breaks_and_nothing_is_left_over(seed: int) -> None:
    async def scenario() -> None:
        fuzz = Fuzz()
        fuzz.start()
        try:
            for number in range(CASES):
                await fuzz.run(seed, number)
        finally:
            fuzz.close()
        assert min(fuzz.begun, fuzz.answered, fuzz.refused) > CASES / 20, "most of it is not refused at the first byte"
        assert len(asyncio.all_tasks()) == 1

    run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("number", [2071])
def test_a_client_that_leaves_while_its_failed_request_is_handed_on_holds_no_slot(number: int) -> None:
    """The short way gave up on the runner's answer, and the client left before the long way had begun."""

    async def scenario() -> None:
        fuzz = Fuzz()
        fuzz.start()
        try:
            for earlier in (*range(30), number):
                await fuzz.run(1, earlier)
        finally:
            fuzz.close()

    run(scenario())
