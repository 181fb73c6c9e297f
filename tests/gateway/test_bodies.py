"""The room for bodies: one bound for all that are held, given back as soon as a body is not needed any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from corral_core.metrics import render
from corral_server.gateway.bodies import half_of_memory
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.front.connection import FrontConnection
from tests.support.exposition import value
from tests.support.fake_upstream import Call, fake_upstream
from tests.support.gateway import MemoryDirectory, Running, endpoint, entry, raw_request, run, running_gateway
from tests.support.waiting import auntil

LARGE = "x" * 100_000
ROOM = 420_000
"""Three large ones in three quarters of it."""
NO_ROOM = "the gateway holds as many bytes of requests as it may, please try again"


def held(gateway: Running) -> int:
    return gateway.gateway._bodies.held


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_a_body_without_room_is_refused_and_small_ones_are_not(path: str) -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory, body_limit=200_000, bodies_limit=ROOM, drain=0.1) as gateway:
            waiting = [asyncio.create_task(gateway.chat(user=LARGE)) for _ in range(3)]
            await gateway.until_waiting(3)
            refused = await gateway.chat(path=path, user=LARGE)
            shown = render([gateway.gateway.families])
            assert value(shown, "corral_gateway_body_bytes") == held(gateway) > 3 * len(LARGE)
            assert value(shown, "corral_gateway_body_limit_bytes") == ROOM
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            error = refused.json()["error"]
            assert (error if isinstance(error, str) else error["message"]) == NO_ROOM
            small = asyncio.create_task(gateway.chat())
            await gateway.until_waiting(4)
            waiting.pop().cancel()
            await gateway.until_waiting(3)
            waiting.append(asyncio.create_task(gateway.chat(user=LARGE)))
            await gateway.until_waiting(4)
            for task in (*waiting, small):
                task.cancel()
            await auntil(lambda: held(gateway) == 0)

    run(scenario())


def test_small_bodies_are_refused_when_all_of_the_room_is_taken() -> None:
    async def scenario() -> None:
        async with running_gateway(
            MemoryDirectory.of(entry("tiny")), body_limit=200_000, bodies_limit=ROOM, drain=0.1
        ) as gateway:
            small = "x" * 59_900
            waiting = [asyncio.create_task(gateway.chat(user=small)) for _ in range(7)]
            await gateway.until_waiting(7)
            assert (await gateway.chat(user=small)).status_code == 503
            assert (await gateway.http.get("/api/tags")).status_code == 200
            for task in waiting:
                task.cancel()
            await auntil(lambda: held(gateway) == 0)

    run(scenario())


def test_what_is_sent_ahead_is_not_read_ahead_without_end() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny"))
        async with fake_upstream() as up, running_gateway(directory) as gateway:
            body = b'{"model":"tiny","user":"%b"}' % (b"x" * 60_000)
            reader, writer = await gateway.connect()
            writer.write(raw_request("/api/chat", body) * 16)
            await gateway.until_waiting(1)
            connections: set[object] = {*gateway.server.server_state.connections}
            (connection,) = connections
            assert isinstance(connection, FrontConnection)
            await auntil(lambda: connection._paused)
            assert sum(exchange.fed for exchange in connection._ahead) < 500_000
            directory.change(endpoints=(endpoint(up.port),))
            for _ in range(16):
                assert await reader.readuntil(b'{"done":true}')
            writer.close()
        assert [call.body for call in up.calls] == [body] * 16

    run(scenario())


def test_a_body_that_was_sent_takes_no_room_while_its_answer_comes() -> None:
    async def scenario() -> None:
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
                await gateway.until_waiting(1)
                assert held(gateway) > len(LARGE)
                directory.change(endpoints=(endpoint(up.port),))
                await auntil(lambda: up.running == 1 and held(gateway) == 0)
                assert not asked.done()
                gate.set()
                assert (await asked).status_code == 200
        assert LARGE.encode() in up.calls[0].body

    run(scenario())


def test_however_a_request_ends_its_room_is_free() -> None:
    async def scenario() -> None:
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

    run(scenario())


@pytest.mark.parametrize(
    ("name", "text", "half"),
    [
        ("memory.max", "1048576\n", 524288),
        ("memory/memory.limit_in_bytes", "2097152\n", 1048576),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
    ],
)
def test_the_room_is_half_of_the_memory_there_is(tmp_path: Path, name: str, text: str, half: int | None) -> None:
    """None: as without any limit."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert half_of_memory(tmp_path) == (half or half_of_memory(tmp_path / "nothing"))
    assert GatewayConfig.from_environment({}).bodies_limit == half_of_memory()
    assert GatewayConfig.from_environment({"CORRAL_BODIES_LIMIT": "7"}).bodies_limit == 7
