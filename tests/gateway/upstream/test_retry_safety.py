"""A request is sent again only when no byte of a response arrived and the runner provably did not begin it."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from corral_server.gateway.upstream.connection import Broken, NotBegun, RunnerConnection, UpstreamError
from corral_server.gateway.upstream.pool import dial
from corral_server.wire.errors import RUNNER_STOPPED
from tests.support.fake_upstream import Behaviour, Call, close_at_once, refuse, reply, reset_at_once
from tests.support.gateway import MemoryDirectory, entry, gateway_with_upstream, raw_request, running_gateway
from tests.support.waiting import auntil

LARGE = 16 * 1024 * 1024
"""Bytes that no socket buffers take at once."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what was acknowledged")
PATHS = ["/api/chat", "/v1/chat/completions", "/v1/messages"]


def message(answer: dict[str, object]) -> object:
    error = answer["error"]
    return error if isinstance(error, str) else error["message"]  # type: ignore[index]  # an object then


@pytest.mark.parametrize("end", [reset_at_once, close_at_once])
@pytest.mark.parametrize("path", PATHS)
async def test_a_request_is_not_retried_after_the_runner_closed_the_connection(path: str, end: Behaviour) -> None:
    async with gateway_with_upstream(reply(), end) as (up, gateway):
        answer = await gateway.chat(path=path)
        assert (answer.status_code, message(answer.json())) == (500, RUNNER_STOPPED)
        assert len(up.calls) == 1
        assert (await gateway.chat(path=path)).status_code == 200


@pytest.mark.parametrize("end", [reset_at_once, close_at_once])
async def test_a_request_on_a_reused_connection_is_not_retried_either(end: Behaviour) -> None:
    async with gateway_with_upstream(reply(), reply(), end) as (up, gateway):
        answers = [await gateway.chat() for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 500]
    assert (len(up.calls), up.connections) == (2, 1)


@pytest.mark.parametrize("reason", ["loading", "draining"])
async def test_a_request_that_the_runner_declined_is_retried(reason: str) -> None:
    async with gateway_with_upstream(reply(), refuse(reason), refuse(reason)) as (up, gateway):
        assert (await gateway.chat()).status_code == 200
    assert len(up.calls) == 3


async def test_a_partial_response_head_counts_as_a_response() -> None:
    async def half(call: Call) -> None:
        await call.write(b"HTTP/1.1 20")
        call.close()

    async with gateway_with_upstream(reply(), half) as (up, gateway):
        answer = await gateway.chat()
    assert (answer.status_code, answer.json()) == (500, {"error": RUNNER_STOPPED})
    assert len(up.calls) == 1


@asynccontextmanager
async def runner_that_reads_no_bodies(times: int) -> AsyncIterator[tuple[int, list[int]]]:
    """Closes so many connections in the middle of a request, then answers; the port, and a count of requests."""
    seen = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen[0] += 1
        if seen[0] > times:
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()


async def test_a_request_that_was_not_sent_completely_is_retried() -> None:
    async with (
        runner_that_reads_no_bodies(2) as (port, seen),
        running_gateway(MemoryDirectory.of(entry("tiny", port))) as gateway,
    ):
        answer = await gateway.chat(padding="x" * LARGE)
    assert answer.status_code == 200
    assert seen == [3]


async def test_retries_are_limited() -> None:
    async with (
        runner_that_reads_no_bodies(99) as (port, seen),
        running_gateway(MemoryDirectory.of(entry("tiny", port))) as gateway,
    ):
        answer = await gateway.chat(padding="x" * LARGE)
    assert (answer.status_code, answer.json()) == (500, {"error": RUNNER_STOPPED})
    assert seen == [5]


async def test_a_disconnect_during_retries_ends_the_request() -> None:
    async with gateway_with_upstream(refuse()) as (up, gateway):
        _, writer = await gateway.connect()
        writer.write(raw_request())
        await auntil(lambda: len(up.calls) >= 2)
        queue = gateway.gateway.dispatcher.queue
        assert queue.pending + queue.slots_in_use("default/tiny") == 1
        writer.close()
        await auntil(lambda: queue.pending + queue.slots_in_use("default/tiny") == 0)


# One connection, and the other side's socket in hand: what each way of ending proves.


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def ended(act: Callable[[RunnerConnection, socket.socket], Awaitable[None]]) -> UpstreamError:
    """What becomes of a request on a connection whose other side does so."""
    with listening() as listener:
        connection = await dial(RunnerConnection(), *listener.getsockname())
        other, _ = listener.accept()
        try:
            await act(connection, other)
            with pytest.raises(UpstreamError) as error:
                await asyncio.wait_for(connection.wait_for_head(), 10)
        finally:
            connection.abort()
            other.close()
        return error.value


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def _closed_before(connection: RunnerConnection, other: socket.socket) -> None:
    other.close()
    connection.send(b"request")


async def _read_and_closed(connection: RunnerConnection, other: socket.socket) -> None:
    connection.send(b"request")
    assert other.recv(100) == b"request"
    other.close()


async def _read_and_reset(connection: RunnerConnection, other: socket.socket) -> None:
    connection.send(b"request")
    assert other.recv(100) == b"request"
    reset(other)


async def _closed_unread(connection: RunnerConnection, other: socket.socket) -> None:
    """The kernel resets then, as when a runner is killed. It was not read, but a reset may also follow a reading."""
    connection.send(b"request")
    other.close()


async def _closed_on_a_part(connection: RunnerConnection, other: socket.socket) -> None:
    connection.send(b"x" * LARGE)
    other.recv(100)
    other.close()


@linux
@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (_closed_before, NotBegun),
        (_closed_on_a_part, NotBegun),
        (_read_and_closed, Broken),
        (_read_and_reset, Broken),
        (_closed_unread, Broken),
    ],
)
async def test_the_error_for_each_way_in_which_a_connection_ends(
    act: Callable[[RunnerConnection, socket.socket], Awaitable[None]], kind: type[UpstreamError]
) -> None:
    for _ in range(20):
        assert type(await ended(act)) is kind


@linux
@pytest.mark.parametrize(("act", "kind"), [(_closed_before, NotBegun), (_read_and_closed, Broken)])
async def test_the_error_on_a_reused_connection(
    act: Callable[[RunnerConnection, socket.socket], Awaitable[None]], kind: type[UpstreamError]
) -> None:
    async def again(connection: RunnerConnection, other: socket.socket) -> None:
        connection.send(b"first")
        assert other.recv(100) == b"first"
        other.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await connection.wait_for_head()
        connection.release()
        await act(connection, other)

    assert type(await ended(again)) is kind
