"""A request is sent again only when no byte of an answer came and the runner provably did not begin it."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from corral_server.gateway.pool import dial
from corral_server.gateway.upstream import Broken, Connection, NotBegun, UpstreamError
from corral_server.wire.errors import RUNNER_STOPPED
from tests.support.fake_upstream import Behaviour, Call, close_at_once, refuse, reply, reset_at_once
from tests.support.gateway import MemoryDirectory, entry, gateway_over, raw_request, run, running_gateway
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
def test_a_runner_that_ends_the_connection_over_a_request_is_not_sent_it_again(path: str, end: Behaviour) -> None:
    async def scenario() -> None:
        async with gateway_over(reply(), end) as (up, gateway):
            answer = await gateway.chat(path=path)
            assert (answer.status_code, message(answer.json())) == (500, RUNNER_STOPPED)
            assert len(up.calls) == 1
            assert (await gateway.chat(path=path)).status_code == 200

    run(scenario())


@pytest.mark.parametrize("end", [reset_at_once, close_at_once])
def test_nor_is_it_on_a_connection_that_served_before(end: Behaviour) -> None:
    async def scenario() -> None:
        async with gateway_over(reply(), reply(), end) as (up, gateway):
            answers = [await gateway.chat() for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 500]
        assert (len(up.calls), up.connections) == (2, 1)

    run(scenario())


@pytest.mark.parametrize("reason", ["loading", "draining"])
def test_a_runner_that_says_it_did_not_begin_is_asked_again(reason: str) -> None:
    async def scenario() -> None:
        async with gateway_over(reply(), refuse(reason), refuse(reason)) as (up, gateway):
            assert (await gateway.chat()).status_code == 200
        assert len(up.calls) == 3

    run(scenario())


def test_half_a_head_of_an_answer_is_an_answer() -> None:
    async def scenario() -> None:
        async def half(call: Call) -> None:
            await call.write(b"HTTP/1.1 20")
            call.close()

        async with gateway_over(reply(), half) as (up, gateway):
            answer = await gateway.chat()
        assert (answer.status_code, answer.json()) == (500, {"error": RUNNER_STOPPED})
        assert len(up.calls) == 1

    run(scenario())


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


def test_a_request_that_never_left_whole_is_sent_again() -> None:
    async def scenario() -> None:
        async with (
            runner_that_reads_no_bodies(2) as (port, seen),
            running_gateway(MemoryDirectory.of(entry("tiny", port))) as gateway,
        ):
            answer = await gateway.chat(padding="x" * LARGE)
        assert answer.status_code == 200
        assert seen == [3]

    run(scenario())


def test_but_not_for_ever() -> None:
    async def scenario() -> None:
        async with (
            runner_that_reads_no_bodies(99) as (port, seen),
            running_gateway(MemoryDirectory.of(entry("tiny", port))) as gateway,
        ):
            answer = await gateway.chat(padding="x" * LARGE)
        assert (answer.status_code, answer.json()) == (500, {"error": RUNNER_STOPPED})
        assert seen == [5]

    run(scenario())


def test_a_client_that_leaves_while_its_request_is_tried_again_is_forgotten() -> None:
    async def scenario() -> None:
        async with gateway_over(refuse()) as (up, gateway):
            _, writer = await gateway.connect()
            writer.write(raw_request())
            await auntil(lambda: len(up.calls) >= 2)
            queue = gateway.gateway.dispatcher.queue
            assert queue.waiting + queue.in_use("default/tiny") == 1
            writer.close()
            await auntil(lambda: queue.waiting + queue.in_use("default/tiny") == 0)

    run(scenario())


# One connection, and the other side's socket in hand: what each way of ending proves.


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def ended(act: Callable[[Connection, socket.socket], Awaitable[None]]) -> UpstreamError:
    """What becomes of a request on a connection whose other side does so."""
    with listening() as listener:
        connection = await dial(Connection(), *listener.getsockname())
        other, _ = listener.accept()
        try:
            await act(connection, other)
            with pytest.raises(UpstreamError) as error:
                await asyncio.wait_for(connection.head(), 10)
        finally:
            connection.abort()
            other.close()
        return error.value


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def _closed_before(connection: Connection, other: socket.socket) -> None:
    other.close()
    connection.send([b"request"])


async def _read_and_closed(connection: Connection, other: socket.socket) -> None:
    connection.send([b"request"])
    assert other.recv(100) == b"request"
    other.close()


async def _read_and_reset(connection: Connection, other: socket.socket) -> None:
    connection.send([b"request"])
    assert other.recv(100) == b"request"
    reset(other)


async def _closed_unread(connection: Connection, other: socket.socket) -> None:
    """The kernel resets then, as when a runner is killed. It was not read, but a reset may also follow a reading."""
    connection.send([b"request"])
    other.close()


async def _closed_on_a_part(connection: Connection, other: socket.socket) -> None:
    connection.send([b"x" * LARGE])
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
def test_what_the_end_of_a_connection_proves(
    act: Callable[[Connection, socket.socket], Awaitable[None]], kind: type[UpstreamError]
) -> None:
    async def scenario() -> None:
        for _ in range(20):
            assert type(await ended(act)) is kind

    run(scenario())


@linux
@pytest.mark.parametrize(("act", "kind"), [(_closed_before, NotBegun), (_read_and_closed, Broken)])
def test_and_on_one_that_served_before(
    act: Callable[[Connection, socket.socket], Awaitable[None]], kind: type[UpstreamError]
) -> None:
    async def again(connection: Connection, other: socket.socket) -> None:
        connection.send([b"first"])
        assert other.recv(100) == b"first"
        other.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await connection.head()
        connection.release()
        await act(connection, other)

    async def scenario() -> None:
        assert type(await ended(again)) is kind

    run(scenario())
