"""Limits of client connections: sizes, timeouts and their number, each with its error, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import resource
import socket

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.bodies.memory import memory_for_clients
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.http_server import connection, timeouts
from corral_server.gateway.http_server.limits import Limits, connections_by_files
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

SOON = 0.3
"""Seconds to which the timeouts are set."""
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n"


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the last response of a connection."""
    said = await asyncio.wait_for(reader.read(), 20)
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head[9:12]), body


def error_text(path: str, body: bytes) -> str:
    error = json.loads(body)["error"]
    return str(error["message"] if path.startswith("/v1/") else error)


async def idle(gateway: RunningGateway) -> None:
    """Wait until no connection, task or slot is left."""
    state, queue = gateway.server.server_state, gateway.gateway.dispatcher.queue
    await auntil(lambda: not (state.connections or state.tasks), what="all connections and tasks are gone")
    assert (queue.slots_in_use("default/tiny"), queue.pending) == (0, 0)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/llm/api/chat"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [(["x: y"] * 300, 431), (["content-length: 1"], 400), (["x: " + "y" * 70_000], 431)],
    ids=["too many headers", "no HTTP", "too large a head"],
)
async def test_errors_in_a_request_head_have_the_format_of_the_api(path: str, headers: list[str], status: int) -> None:
    bounds = Limits(prefix="/llm")
    async with running_gateway(MemoryDirectory(), path_prefix="/llm", limits=bounds) as gateway:
        reader, writer = await gateway.connect()
        writer.write(raw_request(path, b"{}", *headers))
        found, body = await response(reader)
        assert found == status
        assert error_text(path, body)
        assert ("request_id" in json.loads(body)) is (path == "/v1/messages")
        writer.close()
        await idle(gateway)


async def test_requests_after_a_rejected_head_are_not_served() -> None:
    async with gateway_with_upstream() as (up, gateway):
        reader, writer = await gateway.connect()
        writer.write(raw_request("/api/chat", b"{}", *["x: y"] * 300) + raw_request())
        assert (await response(reader))[0] == 431
        assert await reader.read() == b""
        writer.close()
        await idle(gateway)
        await gateway.chat()
        assert len(up.calls) == 1, "that of the later client"


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
async def test_a_client_can_read_the_413_for_its_oversized_body(path: str, framing: str) -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny")), body_limit=100_000) as gateway:
        reader, writer = await gateway.connect()
        kind = "content-length: 3000000" if framing == "length" else "transfer-encoding: chunked"
        writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\n\r\n".encode())
        piece = b"x" * 10_000 if framing == "length" else b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        for _ in range(300):
            writer.write(piece)
        status, body = await response(reader)
        assert status == 413
        assert error_text(path, body) == "the request body is larger than 100000 bytes"
        writer.close()
        await idle(gateway)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"GET /api/tags HTTP/1.1\r\nhost: x\r\n", "the head of the request took too long"),
        (HEAD + b'{"mod', "the body of the request took too long"),
        (HEAD, "the body of the request took too long"),
    ],
)
async def test_a_client_that_stops_sending_a_request_gets_408(sent: bytes, text: str) -> None:
    bounds = Limits(head_timeout=SOON, body_timeout=SOON)
    async with running_gateway(MemoryDirectory.of(entry("tiny")), limits=bounds) as gateway:
        reader, writer = await gateway.connect()
        writer.write(sent)
        status, body = await response(reader)
        assert status == 408
        assert error_text("/api/tags" if sent.startswith(b"GET") else "/v1/", body) == text
        writer.close()
        await idle(gateway)


@pytest.mark.parametrize("part", ["head", "body"])
async def test_a_client_that_sends_a_request_too_slowly_gets_408(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "MIN_BODY_RATE", 1024 * 1024)

    bounds = Limits(head_timeout=SOON, body_timeout=SOON)
    async with running_gateway(MemoryDirectory.of(entry("tiny")), limits=bounds) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"GET / HTTP/1.1\r\nx: " if part == "head" else HEAD.replace(b"16", b"60000"))
        answered = asyncio.create_task(response(reader))
        while not answered.done():
            writer.write(b"y")
            await asyncio.wait([answered], timeout=SOON / 10)
        assert (await answered)[0] == 408
        writer.close()
        await idle(gateway)


async def test_a_body_that_arrives_in_pieces_is_served() -> None:
    async with (
        fake_upstream() as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), limits=Limits(body_timeout=5.0)) as gateway,
    ):
        reader, writer = await gateway.connect()
        body = b'{"model":"tiny","pad":"%s"}' % (b"x" * 300_000)
        request = raw_request(body=body)
        for _ in range(2):
            for start in range(0, len(request), 30_000):
                writer.write(request[start : start + 30_000])
                await writer.drain()
            await asyncio.wait_for(reader.readuntil(b'{"done":true}'), 10)
        writer.close()
    assert [call.body for call in up.calls] == [body] * 2, "both over one connection"


@pytest.mark.parametrize("before", [b"", b"GET /api/version HTTP/1.1\r\nhost: x\r\n\r\n"])
async def test_an_idle_connection_is_closed_without_a_response(before: bytes) -> None:
    async with running_gateway(MemoryDirectory(), limits=Limits(idle_timeout=SOON)) as gateway:
        reader, writer = await gateway.connect()
        writer.write(before)
        said = await asyncio.wait_for(reader.read(), 20)
        assert said.count(b"HTTP/1.1 ") == bool(before)
        writer.close()
        await idle(gateway)


async def test_a_client_whose_request_is_queued_is_not_idle() -> None:
    bounds = Limits(idle_timeout=SOON, head_timeout=SOON, body_timeout=SOON, write_timeout=SOON)
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory, limits=bounds) as gateway:
            idler, writer = await gateway.connect()
            asked = asyncio.create_task(gateway.chat())
            await gateway.until_pending(1)
            assert await asyncio.wait_for(idler.read(), 20) == b"", "one that is idle was closed meanwhile"
            assert not asked.done()
            directory.change(endpoints=entry("tiny", up.port).endpoints)
            assert (await asked).status_code == 200
            writer.close()


async def test_a_client_that_never_reads_times_out_and_frees_its_slot() -> None:
    async def flood(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        while True:
            await call.chunk(b'{"x":"%s"}\n' % (b"y" * 60_000))

    async with (
        fake_upstream(flood, reply()) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), limits=Limits(write_timeout=SOON)) as gateway,
    ):
        for _ in range(2):  # on a new connection to the runner, and on an idle one
            up.script.append(flood)
            await gateway.chat() if not up.calls else None
            with socket.create_connection(("127.0.0.1", gateway.port)) as client:
                client.sendall(raw_request())
                await auntil(lambda: gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 1)
                await auntil(lambda: gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0, 20)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages"])
async def test_a_connection_over_the_limit_gets_503_and_probes_are_answered(path: str) -> None:
    async with gateway_with_upstream() as (_, gateway):
        gateway.gateway.limits = Limits(connections=3)
        held = [await gateway.connect() for _ in range(3)]
        await auntil(lambda: len(gateway.server.server_state.connections) == 3)
        for asked, status in ((path, 503), ("/readyz", 200), ("/healthz", 200), ("/api/tags", 503)):
            reader, writer = await gateway.connect()
            writer.write(raw_request(asked, b"", method="GET" if status == 200 else "POST"))
            found, body = await response(reader)
            assert found == status
            if status == 503:
                said = json.loads(body)["error"]
                assert "too many connections" in (said["message"] if asked == "/v1/messages" else said)
            writer.close()
        for _, writer in held:
            writer.close()
        await auntil(lambda: len(gateway.server.server_state.connections) == 0)
        assert (await gateway.chat()).status_code == 200


async def test_connections_far_over_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ERROR_CONNECTIONS", 1)

    async with running_gateway(MemoryDirectory(), limits=Limits(connections=1)) as gateway:
        first = [await gateway.connect() for _ in range(2)]
        await auntil(lambda: len(gateway.server.server_state.connections) == 2)
        reader, writer = await gateway.connect()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 10)
        for _, held in [*first, (reader, writer)]:
            held.close()


async def test_a_half_closed_client_gets_the_gateways_own_responses() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"GET /api/tags HTTP/1.1\r\nhost: x\r\n\r\n")
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), 20)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"tiny" in said
        writer.close()
        await idle(gateway)


@pytest.mark.parametrize("together", [True, False])
async def test_a_half_closed_client_counts_as_disconnected_while_it_is_queued(together: bool) -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory) as gateway:
        reader, writer = await gateway.connect()
        writer.write(raw_request())
        if not together:
            await gateway.until_pending(1)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await idle(gateway)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_read_timeout_ends_the_request_with_an_error(begun: bool, times: int) -> None:
    async def silent(call: Call) -> None:
        if begun:
            await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
            await call.chunk(b'{"n":1}\n')
        await call.wait_closed()

    async with (
        fake_upstream(silent, *[reply()] * (times - 1)) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), upstream_read_timeout=SOON) as gateway,
    ):
        for _ in range(times):
            answer = await gateway.chat()
        assert answer.status_code == (200 if begun else 504)
        assert "error" in json.loads(answer.text.splitlines()[-1])
        await auntil(lambda: gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0)


def test_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "CORRAL_HEAD_LIMIT": "2048",
        "CORRAL_HEADER_COUNT": "50",
        "CORRAL_HEAD_TIMEOUT": "5s",
        "CORRAL_BODY_TIMEOUT": "6s",
        "CORRAL_IDLE_TIMEOUT": "7s",
        "CORRAL_WRITE_TIMEOUT": "8s",
        "CORRAL_MAX_CONNECTIONS": "9",
        "CORRAL_PATH_PREFIX": "/llm",
        "CORRAL_UPSTREAM_TIMEOUT": "10m",
        "CORRAL_DRAIN_DELAY": "3s",
    }
    config = GatewayConfig.from_environment(environ)
    assert config.limits == Limits(2048, 50, 5.0, 6.0, 7.0, 8.0, 9, "/llm")
    assert (config.upstream_read_timeout, config.drain_delay) == (600.0, 3.0)
    config = GatewayConfig.from_environment({})
    assert (config.upstream_read_timeout, config.drain_delay) == (0.0, 0.0)
    assert config.limits == Limits(connections=min(connections_by_files(), memory_for_clients() // 2 // (32 * 1024)))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 30, 1 << 30))
    tls = GatewayConfig.from_environment({"CORRAL_TLS_CERT": "/tls.crt", "CORRAL_TLS_KEY": "/tls.key"})
    assert tls.limits.connections == memory_for_clients() // 2 // (96 * 1024)
    with pytest.raises(InvalidSetting, match="CORRAL_HEAD_TIMEOUT"):
        GatewayConfig.from_environment({"CORRAL_HEAD_TIMEOUT": "0"})


def test_the_limit_of_open_files_bounds_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    assert connections_by_files() == (4096 - 512) // 2
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 256))
    assert connections_by_files() == 64
