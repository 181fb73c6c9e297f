"""What the gateway tells of answers in pieces: every gap, and those that break off."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.gateway.test_metrics import KEY, told
from tests.support.exposition import value
from tests.support.fake_upstream import Behaviour, Call, reply
from tests.support.gateway import gateway_over, run


def in_step(steps: asyncio.Semaphore, pieces: list[bytes]) -> Behaviour:
    """A stream whose every piece waits for a step."""

    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        for piece in pieces:
            await steps.acquire()
            await call.chunk(piece)
        await call.write(b"0\r\n\r\n")

    return behave


def broken_off(*pieces: bytes, length: int = 0) -> Behaviour:
    """A stream, or with ``length`` a whole answer of that size, that ends after these pieces with a reset."""

    async def behave(call: Call) -> None:
        if length:
            await call.head(200, {"content-type": "application/json", "content-length": str(length)})
        else:
            await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        for piece in pieces:
            await (call.write(piece) if length else call.chunk(piece))
        call.close()

    return behave


def test_every_gap_between_the_pieces_of_a_stream_is_an_observation() -> None:
    async def scene() -> None:
        steps = asyncio.Semaphore(1)
        async with gateway_over(in_step(steps, [b'{"n":%d}\n' % number for number in range(5)])) as (_, gateway):
            for _ in range(2):  # the first makes a connection to the runner, the second goes the short way
                async with gateway.http.stream("POST", "/api/chat", json={"model": "tiny"}) as answer:
                    async for _line in answer.aiter_lines():
                        steps.release()
            text = told(gateway)
            assert value(text, "corral_gateway_time_per_chunk_seconds_count", model=KEY) == 8
            spent = value(text, "corral_gateway_request_seconds_sum", model=KEY)
            assert 0 < value(text, "corral_gateway_time_per_chunk_seconds_sum", model=KEY) < spent

    run(scene())


def test_a_whole_answer_has_no_gaps_however_many_pieces_it_takes() -> None:
    async def scene() -> None:
        async with gateway_over(reply(body=b"x" * 3_000_000)) as (_, gateway):
            assert len((await gateway.chat()).content) == 3_000_000
            assert value(told(gateway), "corral_gateway_time_per_chunk_seconds_count", model=KEY) == 0

    run(scene())


def test_a_stream_that_its_runner_breaks_off_is_no_good_answer_though_its_code_is_200() -> None:
    async def scene() -> None:
        async with gateway_over(broken_off(b'{"n":1}\n'), reply()) as (_, gateway):
            await gateway.chat()
            for count in (1, 2):  # the first on an idle connection, the second on a new one
                assert "error" in (await gateway.chat(stream=True)).text
                text = told(gateway)
                assert value(text, "corral_gateway_broken_answers_total", model=KEY) == count
                assert value(text, "corral_gateway_requests_total", model=KEY, code="200") == 1 + count
                assert value(text, "corral_gateway_request_seconds_count", model=KEY) == 1

    run(scene())


def test_a_large_answer_that_its_runner_breaks_off_is_counted() -> None:
    async def scene() -> None:
        async with gateway_over(broken_off(b"x" * 2_000_000, length=3_000_000)) as (_, gateway):
            with pytest.raises(httpx.RemoteProtocolError):
                await gateway.chat()
            text = told(gateway)
            assert value(text, "corral_gateway_broken_answers_total", model=KEY) == 1
            assert value(text, "corral_gateway_requests_total", model=KEY, code="200") == 1

    run(scene())
