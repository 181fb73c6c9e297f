"""Client connections over raw sockets: framing, pipelining, upgrades, invalid input and draining."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_server.gateway.http_server.limits import DEFAULTS
from corral_server.gateway.proxy.relay import SHUTTING_DOWN
from tests.support.fake_upstream import Call, fake_upstream, reply, stream
from tests.support.gateway import (
    MemoryDirectory,
    RunningGateway,
    entry,
    gateway_with_upstream,
    raw_request,
    run,
    running_gateway,
)
from tests.support.waiting import auntil

GET = b"GET /api/version HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def talk(gateway: RunningGateway, data: bytes) -> bytes:
    """Sends the bytes and reads until the gateway closes."""
    reader, writer = await gateway.connect()
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def answer_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of a response with a content-length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with gateway_with_upstream() as (up, gateway):
        reader, writer = await gateway.connect()
        bodies = [b'{"model":"tiny","n":%d}' % number for number in range(50)]
        writer.write(b"".join(raw_request(body=body) + GET for body in bodies))
        for _ in bodies:
            assert (await answer_of(reader))[1] == b'{"done":true}'
            assert b"version" in (await answer_of(reader))[1]
        writer.close()
    assert [json.loads(call.body)["n"] for call in up.calls] == list(range(50))
    assert up.max_running == 1


async def test_a_pipelining_client_that_disconnects_frees_its_slot() -> None:
    async def hang(call: Call) -> None:
        await call.wait_closed()

    async with gateway_with_upstream(hang) as (up, gateway):
        _, writer = await gateway.connect()
        writer.write(raw_request() * 3)
        await auntil(lambda: up.calls)
        writer.close()
        await auntil(lambda: gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0)
    assert len(up.calls) == 1


async def test_connection_close_is_honoured() -> None:
    async with gateway_with_upstream() as (_, gateway):
        said = await talk(gateway, raw_request("/api/chat", b'{"model":"tiny"}', "connection: close"))
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in said


async def test_an_http_1_0_response_is_not_chunked() -> None:
    async with gateway_with_upstream(stream([b'{"n":1}\n', b'{"n":2}\n'])) as (_, gateway):
        said = await talk(gateway, raw_request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == b'{"n":1}\n{"n":2}\n'


async def test_expect_100_continue() -> None:
    async with gateway_with_upstream() as (_, gateway):
        reader, writer = await gateway.connect()
        head, body = raw_request("/api/chat", b'{"model":"tiny"}', "expect: 100-continue").split(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await answer_of(reader))[1] == b'{"done":true}'
        writer.close()


async def test_a_rejected_body_gets_no_100_continue() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny")), body_limit=10_000) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 999999\r\nexpect: 100-continue\r\n\r\n")
        head, _ = await answer_of(reader)
        writer.close()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\r\n c: folded\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n", 400),
        (b"POST /api/chat HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /api/chat HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef", 400),
        (b"POST /api/chat HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /api/chat HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 300 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * (DEFAULTS.head + 1), 431),
        (b"GET /" + b"y" * (DEFAULTS.head + 1), 431),
    ],
)
async def test_invalid_http_is_rejected_and_the_connection_closes(data: bytes, status: int) -> None:
    async with gateway_with_upstream() as (up, gateway):
        said = await talk(gateway, data)
        assert (await gateway.chat()).status_code == 200
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert len(up.calls) == 1


@pytest.mark.parametrize(
    "target", [b"*", b"http://other/api/version", b"//api", b"/%", b"/%ff%fe", b"/\xc3\xa9", b"/?a#b"]
)
async def test_unusual_targets_never_get_a_5xx(target: bytes) -> None:
    async with running_gateway(MemoryDirectory()) as gateway:
        said = await talk(gateway, b"GET " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert said[9:10] in b"234"


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PROPFIND", "PURGE"])
async def test_unusual_methods_never_get_a_5xx(method: str) -> None:
    async with running_gateway(MemoryDirectory()) as gateway:
        said = await talk(gateway, f"{method} /api/chat HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    assert said[9:10] == b"4"


async def test_an_upgrade_offer_is_ignored() -> None:
    async with running_gateway(MemoryDirectory()) as gateway:
        said = await talk(gateway, GET[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("later", [False, True])
async def test_the_body_of_a_request_with_an_upgrade_offer_is_read(later: bool) -> None:
    offer = "connection: upgrade\r\nupgrade: h2c\r\nexpect: 100-continue"
    head, end, body = raw_request("/api/chat", b'{"model":"tiny"}', offer).partition(b"\r\n\r\n")
    async with gateway_with_upstream() as (up, gateway):
        reader, writer = await gateway.connect()
        writer.write(head + end if later else head + end + body)
        if later and (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 "):
            writer.write(body)
        assert (await answer_of(reader))[1] == b'{"done":true}'
        writer.close()
    assert [call.body for call in up.calls] == [body]


async def test_an_incomplete_response_closes_the_client_connection() -> None:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/json", "content-length": "5000000"})
        await call.write(b"x" * 2_000_000)
        call.close()

    async with gateway_with_upstream(behave) as (_, gateway):
        said = await talk(gateway, raw_request())
    assert len(said.partition(b"\r\n\r\n")[2]) == 2_000_000


async def test_a_drain_finishes_queued_and_running_requests_and_accepts_none() -> None:
    go_on = asyncio.Event()

    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        await go_on.wait()
        await call.chunk(b'{"n":2}\n')
        await call.write(b"0\r\n\r\n")

    async with fake_upstream(reply(), behave) as up:
        directory = MemoryDirectory.of(entry("tiny", up.port, slots=1))
        async with running_gateway(directory) as gateway:
            running = asyncio.create_task(gateway.chat())
            await auntil(lambda: up.calls)
            held = asyncio.create_task(gateway.chat())
            await gateway.until_pending(1)
            gateway.server.should_exit = True
            await auntil(lambda: not gateway.server.servers[0].is_serving())
            with pytest.raises(OSError, match="refused"):
                await asyncio.open_connection("127.0.0.1", gateway.port)
            go_on.set()
            assert (await running).text == '{"n":1}\n{"n":2}\n'
            assert (await held).status_code == 200


async def test_requests_left_at_the_end_of_the_drain_get_an_error() -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory, drain=1.0) as gateway:
        held = asyncio.create_task(gateway.chat(path="/v1/chat/completions"))
        await gateway.until_pending(1)
        gateway.server.should_exit = True
        answer = await held
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == SHUTTING_DOWN
    assert directory.demands[-1] == ("default/tiny", 0, None)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("warm", [0, 1])
async def test_a_stream_left_at_the_end_of_the_drain_ends_with_an_error_line(warm: int, streaming: bool) -> None:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        await call.wait_closed()

    async with (
        fake_upstream(behave, *[reply()] * warm) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), drain=1.0) as gateway,
    ):
        for _ in range(warm):
            await gateway.chat()
        reader, writer = await gateway.connect()
        writer.write(raw_request())
        if streaming:
            assert b"200 OK" in await reader.readuntil(b'{"n":1}\n\r\n')
        await auntil(lambda: len(up.calls) == warm + 1)
        gateway.server.should_exit = True
        said = await reader.read()
        writer.close()
    lines = [line for line in said.splitlines() if line.startswith(b"{")][-2 + streaming :]
    assert [json.loads(line) for line in lines] == [{"n": 1}, {"error": SHUTTING_DOWN}][streaming:]


FRAGMENTS = st.sampled_from(
    [
        b"POST /api/chat HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\n",
        b"host: x\r\n",
        b"content-length: 16\r\n",
        b"transfer-encoding: chunked\r\n",
        b"connection: close\r\n",
        b"expect: 100-continue\r\n",
        b"\r\n",
        b'{"model":"tiny"}',
        b"10\r\n",
        b"0\r\n\r\n",
        b"\x00",
        b"HTTP/1.0",
    ]
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(FRAGMENTS | st.binary(max_size=6), max_size=12).map(b"".join), min_size=1, max_size=8))
def test_arbitrary_bytes_cause_no_server_error(inputs: list[bytes]) -> None:
    """Whatever comes, in pieces: no 5xx, no slot left over, and the next request is answered."""

    async def scenario() -> None:
        async with gateway_with_upstream() as (_, gateway):
            for data in inputs:
                reader, writer = await gateway.connect()
                for start in range(0, len(data), 7):
                    writer.write(data[start : start + 7])
                    await writer.drain()
                writer.write_eof()
                said = await asyncio.wait_for(reader.read(), 10)
                assert b"HTTP/1.1 5" not in said
                writer.close()
            assert (await gateway.chat()).status_code == 200
            assert gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0
            await auntil(lambda: len(gateway.server.server_state.tasks) <= 1)

    run(scenario())
