"""Metrics of streamed responses: chunk intervals and incomplete responses."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.gateway.observability.test_metrics import KEY, exposition
from tests.support.exposition import sample_value
from tests.support.fake_upstream import Behaviour, Call, reply
from tests.support.gateway import gateway_with_upstream


def in_step(steps: asyncio.Semaphore, pieces: list[bytes]) -> Behaviour:
    """Stream with one chunk per released step."""

    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        for piece in pieces:
            await steps.acquire()
            await call.chunk(piece)
        await call.write(b"0\r\n\r\n")

    return behave


def broken_off(*pieces: bytes, length: int = 0) -> Behaviour:
    """Stream, or response of ``length`` bytes, that is reset after these pieces."""

    async def behave(call: Call) -> None:
        if length:
            await call.head(200, {"content-type": "application/json", "content-length": str(length)})
        else:
            await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        for piece in pieces:
            await (call.write(piece) if length else call.chunk(piece))
        call.close()

    return behave


async def test_every_interval_between_chunks_is_observed() -> None:
    steps = asyncio.Semaphore(1)
    async with gateway_with_upstream(in_step(steps, [b'{"n":%d}\n' % number for number in range(5)])) as (_, gateway):
        for _ in range(2):  # the first connects to the runner, the second reuses the connection
            async with gateway.http.stream("POST", "/api/chat", json={"model": "tiny"}) as answer:
                async for _line in answer.aiter_lines():
                    steps.release()
        text = exposition(gateway)
        assert sample_value(text, "corral_gateway_chunk_interval_seconds_count", model=KEY) == 8
        spent = sample_value(text, "corral_gateway_request_duration_seconds_sum", model=KEY)
        assert 0 < sample_value(text, "corral_gateway_chunk_interval_seconds_sum", model=KEY) < spent


async def test_a_response_with_a_length_has_no_chunk_intervals() -> None:
    async with gateway_with_upstream(reply(body=b"x" * 3_000_000)) as (_, gateway):
        assert len((await gateway.chat()).content) == 3_000_000
        assert sample_value(exposition(gateway), "corral_gateway_chunk_interval_seconds_count", model=KEY) == 0


async def test_a_stream_that_the_runner_ends_early_counts_as_incomplete() -> None:
    async with gateway_with_upstream(broken_off(b'{"n":1}\n'), reply()) as (_, gateway):
        await gateway.chat()
        for count in (1, 2):  # the first on an idle connection, the second on a new one
            assert "error" in (await gateway.chat(stream=True)).text
            text = exposition(gateway)
            assert sample_value(text, "corral_gateway_incomplete_responses_total", model=KEY) == count
            assert sample_value(text, "corral_gateway_requests_total", model=KEY, code="200") == 1 + count
            assert sample_value(text, "corral_gateway_request_duration_seconds_count", model=KEY) == 1


async def test_a_large_response_that_the_runner_ends_early_counts_as_incomplete() -> None:
    async with gateway_with_upstream(broken_off(b"x" * 2_000_000, length=3_000_000)) as (_, gateway):
        with pytest.raises(httpx.RemoteProtocolError):
            await gateway.chat()
        text = exposition(gateway)
        assert sample_value(text, "corral_gateway_incomplete_responses_total", model=KEY) == 1
        assert sample_value(text, "corral_gateway_requests_total", model=KEY, code="200") == 1
