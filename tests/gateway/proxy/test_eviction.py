"""Requests on a runner that is ended after the eviction timeout: each ends with an error that says why."""

from __future__ import annotations

import asyncio
import json

import pytest

from corral_server.gateway.queueing.dispatcher import EVICTED
from tests.support.fake_upstream import Behaviour, Call, fake_upstream
from tests.support.gateway import MemoryDirectory, endpoint, entry, running_gateway
from tests.support.waiting import auntil


def never_ends(content_type: str, first: bytes) -> Behaviour:
    """Return a behaviour that sends ``first`` and then nothing more."""

    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": content_type, "transfer-encoding": "chunked"})
        if first:
            await call.chunk(first)
        await asyncio.Event().wait()

    return behave


@pytest.mark.parametrize(
    ("path", "content_type", "first"),
    [
        ("/api/chat", "application/x-ndjson", b'{"n":1}\n'),
        ("/v1/chat/completions", "text/event-stream", b'data: {"n":1}\n\n'),
    ],
)
async def test_a_stream_ends_with_an_error_that_says_why(path: str, content_type: str, first: bytes) -> None:
    async with fake_upstream(never_ends(content_type, first)) as up:
        directory = MemoryDirectory.of(entry("tiny", up.port), entry("other", up.port))
        async with running_gateway(directory) as gateway:
            body = {"model": "tiny", "messages": []}
            async with gateway.http.stream("POST", path, json=body) as answer:
                pieces = answer.aiter_bytes()
                assert await anext(pieces) == first
                directory.change(interrupted=True, endpoints=())
                rest = b"".join([piece async for piece in pieces])
            assert gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0
    error = json.loads(rest.removeprefix(b"data: "))["error"]
    assert (error if isinstance(error, str) else error["message"]) == EVICTED


@pytest.mark.parametrize("first", [b"", b'{"half'])
async def test_a_request_without_a_sent_byte_is_answered_503(first: bytes) -> None:
    async with fake_upstream(never_ends("application/json", first)) as up:
        directory = MemoryDirectory.of(entry("tiny", up.port))
        async with running_gateway(directory) as gateway:
            asked = asyncio.create_task(gateway.chat())
            await auntil(lambda: up.calls)
            directory.change(interrupted=True, endpoints=())
            answer = await asked
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, {"error": EVICTED}, "1")


async def test_pending_requests_and_other_models_are_not_interrupted() -> None:
    gate = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.head(200, {"content-type": "application/json", "content-length": "2"})
        await gate.wait()
        await call.write(b"{}")

    async with fake_upstream(slow) as up:
        directory = MemoryDirectory.of(entry("tiny"), entry("other", up.port))
        async with running_gateway(directory) as gateway:
            running, waiting = (asyncio.create_task(gateway.chat(name)) for name in ("other", "tiny"))
            await auntil(lambda: up.calls and gateway.pending == 1)
            directory.change(interrupted=True)
            directory.change(interrupted=False, endpoints=(endpoint(up.port),))
            gate.set()
            answers = await asyncio.gather(running, waiting)
    assert [answer.status_code for answer in answers] == [200, 200]
