"""Hostile clients: endless input and unread responses take bounded memory and time."""

from __future__ import annotations

import asyncio
import socket

import pytest

from corral_server.gateway.http_server.limits import Limits
from tests.gateway.http_server.test_limits import error_text, idle, response
from tests.support.fake_upstream import Call, fake_upstream, reply
from tests.support.gateway import (
    MemoryDirectory,
    RunningGateway,
    entry,
    gateway_with_upstream,
    raw_request,
    running_gateway,
)
from tests.support.waiting import auntil

CHUNKED = b"POST /api/chat HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b'{"model":"tiny"}'
SOON = 0.3


@pytest.mark.parametrize(
    ("begun", "endless"),
    [
        pytest.param(b"10\r\n" + BODY + b"\r\n0\r\nx: ", b"y" * 65536, id="a trailer's value"),
        pytest.param(b"10\r\n" + BODY + b"\r\n0\r\n", b"y" * 65536, id="a trailer's name"),
        pytest.param(b"10\r\n" + BODY + b"\r\n0\r\n", b"x: y\r\n" * 10_000, id="trailers"),
        pytest.param(b"10;", b"y" * 65536, id="an extension of a chunk"),
        pytest.param(b"", b"1;" + b"y" * 4096 + b"\r\n \r\n", id="extensions of chunks"),
    ],
)
async def test_chunk_extensions_and_trailers_are_limited(begun: bytes, endless: bytes) -> None:
    async with gateway_with_upstream() as (up, gateway):
        reader, writer = await gateway.connect()
        writer.write(CHUNKED + begun)
        answered = asyncio.create_task(response(reader))
        sent = 0
        while not answered.done():
            writer.write(endless)
            sent += len(endless)
            assert sent < 32 * 1024 * 1024, "the request is rejected before"
            await asyncio.wait([answered], timeout=0.001)
        status, body = await answered
        assert status == 400
        assert error_text("/api/chat", body) == "There is too much around the body of the request."
        writer.close()
        await idle(gateway)
    assert not up.calls


async def test_a_body_in_chunks_of_one_byte_is_accepted() -> None:
    body = b'{"model":"tiny","prompt":"' + b"x" * 100_000 + b'"}'
    async with gateway_with_upstream() as (up, gateway):
        reader, writer = await gateway.connect()
        writer.write(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nx-sum: 1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert up.calls[0].body == body


@pytest.mark.parametrize("then", [b"nonsense\r\n\r\n", raw_request("/api/version", b"", "connection: close")])
async def test_a_client_that_does_not_read_is_disconnected_whatever_it_sends(then: bytes) -> None:
    large = reply(body=b"x" * 900_000)
    async with (
        fake_upstream(large) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), limits=Limits(write_timeout=SOON)) as gateway,
    ):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", gateway.port))
            for asked in range(1, 100):
                client.sendall(raw_request())
                await auntil(lambda: len(up.calls) == asked and not in_use(gateway))  # noqa: B023  awaited here
                if choked(gateway):
                    break
            client.sendall(then)
            await auntil(lambda: not gateway.server.server_state.connections, 20, what="it is let go")


def choked(gateway: RunningGateway) -> bool:
    """Whether something was written that a client does not take."""
    connections = gateway.server.server_state.connections
    return any(getattr(getattr(connection, "flow", None), "write_paused", False) for connection in connections)


def in_use(gateway: RunningGateway) -> int:
    return gateway.gateway.dispatcher.queue.slots_in_use("default/tiny")


@pytest.mark.parametrize("served", [0, 1])
async def test_a_client_that_does_not_read_does_not_delay_the_end_of_a_drain(
    served: int, caplog: pytest.LogCaptureFixture
) -> None:
    """``served``: requests before it; with one the stream uses a connection that is open already."""

    async def flood(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        while True:
            await call.chunk(b'{"x":"%s"}\n' % (b"y" * 60_000))

    async with fake_upstream(flood, *[reply()] * served) as up:
        directory = MemoryDirectory.of(entry("tiny", up.port))
        async with running_gateway(directory, drain=0.5) as gateway:
            for _ in range(served):
                await gateway.chat()
            with socket.create_connection(("127.0.0.1", gateway.port)) as client:
                client.sendall(raw_request())
                await auntil(lambda: choked(gateway))
                gateway.server.should_exit = True
                await auntil(lambda: not (in_use(gateway) or gateway.server.server_state.tasks), 10)
    assert not [line for line in caplog.records if "application failed" in line.getMessage()]
