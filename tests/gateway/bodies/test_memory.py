"""Body memory: one limit for all bodies that are held, and its release."""

from __future__ import annotations

import asyncio
import resource
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway import config
from corral_server.gateway.bodies.memory import BodyMemory, BodyReservation, available_memory, memory_for_clients
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.http_server.connection import ClientConnection
from corral_server.gateway.http_server.exchange import Exchange, append_piece
from corral_server.gateway.http_server.flow_control import FlowControl
from tests.support.exposition import expose_text, sample_value
from tests.support.fake_upstream import Call, fake_upstream
from tests.support.gateway import MemoryDirectory, RunningGateway, endpoint, entry, raw_request, running_gateway
from tests.support.waiting import auntil

LARGE = "x" * 100_000
MEMORY = 420_000
"""Three quarters of it hold three large bodies."""
NO_MEMORY = "the gateway holds as many bytes of request bodies as it may, please try again"


def held(gateway: RunningGateway) -> int:
    return gateway.gateway._memory.used


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_large_bodies_are_rejected_before_small_ones_when_memory_is_used_up(path: str) -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory, body_limit=200_000, body_memory_limit=MEMORY, drain=0.1) as gateway:
        waiting = [asyncio.create_task(gateway.chat(user=LARGE)) for _ in range(3)]
        await gateway.until_pending(3)
        refused = await gateway.chat(path=path, user=LARGE)
        shown = expose_text(gateway.gateway.families)
        assert sample_value(shown, "corral_gateway_buffered_body_bytes") == held(gateway) > 3 * len(LARGE)
        assert sample_value(shown, "corral_gateway_buffered_body_limit_bytes") == MEMORY
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        error = refused.json()["error"]
        assert (error if isinstance(error, str) else error["message"]) == NO_MEMORY
        small = asyncio.create_task(gateway.chat())
        await gateway.until_pending(4)
        waiting.pop().cancel()
        await gateway.until_pending(3)
        waiting.append(asyncio.create_task(gateway.chat(user=LARGE)))
        await gateway.until_pending(4)
        for task in (*waiting, small):
            task.cancel()
        await auntil(lambda: held(gateway) == 0)


async def test_small_bodies_are_rejected_when_all_memory_is_used() -> None:
    async with running_gateway(
        MemoryDirectory.of(entry("tiny")), body_limit=200_000, body_memory_limit=MEMORY, drain=0.1
    ) as gateway:
        small = "x" * 59_900
        waiting = [asyncio.create_task(gateway.chat(user=small)) for _ in range(7)]
        await gateway.until_pending(7)
        assert (await gateway.chat(user=small)).status_code == 503
        assert (await gateway.http.get("/api/tags")).status_code == 200
        for task in waiting:
            task.cancel()
        await auntil(lambda: held(gateway) == 0)


async def test_reading_pauses_while_many_pipelined_bytes_are_pending() -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with fake_upstream() as up, running_gateway(directory) as gateway:
        body = b'{"model":"tiny","user":"%b"}' % (b"x" * 60_000)
        reader, writer = await gateway.connect()
        writer.write(raw_request("/api/chat", body) * 16)
        await gateway.until_pending(1)
        connections: set[object] = {*gateway.server.server_state.connections}
        (connection,) = connections
        assert isinstance(connection, ClientConnection)
        await auntil(lambda: connection.flow.read_paused)
        assert sum(exchange.bytes_received for exchange in connection._pipelined) < 500_000
        directory.change(endpoints=(endpoint(up.port),))
        for _ in range(16):
            assert await reader.readuntil(b'{"done":true}')
        writer.close()
    assert [call.body for call in up.calls] == [body] * 16


async def test_a_forwarded_body_takes_no_memory_during_the_response() -> None:
    gate = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b"{}\n")
        await gate.wait()
        await call.write(b"0\r\n\r\n")

    async with fake_upstream(slow) as up:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            asked = asyncio.create_task(gateway.chat(user=LARGE))
            await gateway.until_pending(1)
            assert held(gateway) > len(LARGE)
            directory.change(endpoints=(endpoint(up.port),))
            await auntil(lambda: up.running == 1 and held(gateway) == 0)
            assert not asked.done()
            gate.set()
            assert (await asked).status_code == 200
    assert LARGE.encode() in up.calls[0].body


async def test_every_end_of_a_request_releases_its_body_memory() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny")), body_limit=150_000) as gateway:
        assert (await gateway.chat("none", user=LARGE)).status_code == 404
        assert (await gateway.http.post("/api/chat", content="{" + LARGE)).status_code == 400
        assert (await gateway.http.post("/api/show", json={"model": "tiny", "x": LARGE})).status_code == 200
        assert (await gateway.http.post("/api/chat", content=LARGE * 2)).status_code == 413
        _, writer = await gateway.connect()
        writer.write(raw_request("/api/chat", LARGE.encode())[:-1])
        await auntil(lambda: held(gateway) > 65536)
        writer.close()
        await auntil(lambda: held(gateway) == 0)


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("memory.max", "1048576\n", 1048576),
        ("memory/memory.limit_in_bytes", "2097152\n", 2097152),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_the_available_memory_is_that_of_the_container(tmp_path: Path, name: str, text: str, limit: int | None) -> None:
    """``limit`` is None for a file that sets no limit."""
    membership = container(tmp_path, text, name=name)
    assert available_memory(tmp_path, membership) == (limit or available_memory(tmp_path / "nothing", membership))


def container(folder: Path, limit: str, *, name: str = "memory.max") -> Path:
    """Write the control group of a container with this limit; return the file of memberships."""
    path, membership = folder / name, folder / "cgroup"
    path.parent.mkdir(exist_ok=True)
    path.write_text(limit)
    path.with_name("memory.current" if name == "memory.max" else "memory.usage_in_bytes").write_text("4096\n")
    membership.write_text("0::/\n" if name == "memory.max" else "4:memory:/\n")
    return membership


@pytest.mark.parametrize("mebibytes", [128, 256, 512, 1024, 4096])
def test_the_defaults_leave_memory_for_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mebibytes: int
) -> None:
    membership = container(tmp_path, f"{mebibytes << 20}\n")
    monkeypatch.setattr(config, "available_memory", lambda: available_memory(tmp_path, membership))
    monkeypatch.setattr(config, "memory_for_clients", lambda: memory_for_clients(tmp_path, membership))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 30, 1 << 30))
    for environ, each in (({}, 32 << 10), ({"CORRAL_TLS_CERT": "/a", "CORRAL_TLS_KEY": "/b"}, 96 << 10)):
        chosen = GatewayConfig.from_environment(environ)
        taken = chosen.body_memory_limit + chosen.limits.connections * each
        assert (mebibytes << 20) - taken >= min(256, mebibytes // 2) << 20
    most = memory_for_clients(tmp_path, membership)
    assert GatewayConfig.from_environment({"CORRAL_BODIES_LIMIT": str(most)}).body_memory_limit == most
    with pytest.raises(InvalidSetting, match="raise the memory limit of the container"):
        GatewayConfig.from_environment({"CORRAL_BODIES_LIMIT": str(most + 1)})


async def test_a_body_in_tiny_pieces_takes_little_more_memory_than_its_size() -> None:
    """Forty bytes for each piece of two bytes would exceed the limit of the bodies by a factor of twenty."""
    size = 200_000
    memory = BodyMemory(size, size)
    exchange = Exchange(FlowControl(mock.Mock(), asyncio.get_running_loop()), lambda _: None)

    async def feed() -> None:
        for number in range(size // 2):
            exchange.feed_body(b"%2d" % (number % 100))
            await asyncio.sleep(0)
        exchange.complete_request()

    tracemalloc.start()
    try:
        feeding = asyncio.create_task(feed())
        body = await memory.read(exchange, BodyReservation(memory), content_length=b"")
        assert len(body) == size
        assert tracemalloc.get_traced_memory()[1] < 3 * size
        await feeding
    finally:
        tracemalloc.stop()


def test_small_pieces_of_a_body_are_joined_and_large_ones_are_not_copied() -> None:
    pieces: list[bytes] = []
    for number in range(10_000):
        append_piece(pieces, b"%2d" % (number % 100))
    large = b"x" * 65536
    append_piece(pieces, large)
    assert b"".join(pieces) == b"".join(b"%2d" % (number % 100) for number in range(10_000)) + large
    assert len(pieces) < 40
    assert pieces[-1] is large
