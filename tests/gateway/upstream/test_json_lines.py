"""Streams of JSON lines whose other end sends anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from corral_core.base.json_fields import JsonObject
from corral_server.gateway.upstream import json_lines
from corral_server.gateway.upstream.json_lines import JsonLineStreams, Source
from tests.support.waiting import auntil

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n"
GOOD = b'{"good": 1}\n'


@asynccontextmanager
async def serving(responses: Sequence[bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve one of the responses per connection, then the last one, and leave that open; yield port and requests."""
    remaining, requests, closing = list(responses), list[bytes](), asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        last = len(remaining) == 1
        writer.write(remaining[0] if last else remaining.pop(0))
        if last:
            await closing.wait()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        closing.set()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def following(
    *responses: bytes, model: str = "", timeout: float = 5.0, limit: int = 1000
) -> AsyncIterator[tuple[list[JsonObject | None], list[bytes]]]:
    """Yield what arrives, and the requests."""
    received: list[JsonObject | None] = []
    streams = JsonLineStreams(lambda name, value: received.append(value), read_timeout=timeout)
    async with serving(responses) as (port, requests):
        streams.follow({"one": Source("127.0.0.1", port, "/status", model=model, line_limit=limit)})
        try:
            yield received, requests
        finally:
            await streams.close()


@pytest.mark.parametrize(
    "bad",
    [
        b"oh\n",
        b"\xff\n",
        b"[]\n",
        b'{"a": NaN}\n',
        b'{"a": 1e999}\n',
        b'{"a": ' + b"9" * 500 + b"}\n",
        b'{"a": "\\ud800"}\n',
        b"[" * 900 + b"\n",
        b'{"a":' * 160 + b"1" + b"}" * 160 + b"\n",
        b" " * 2000 + b"{}\n",
        b" " * 2000,
    ],
    ids=lambda bad: repr(bad[:16]),
)
async def test_a_stream_that_ends_with_a_bad_line_is_opened_again(bad: bytes) -> None:
    async with following(HEAD + GOOD + bad, HEAD + GOOD) as (received, _):
        await auntil(lambda: len(received) >= 3)
        assert received == [{"good": 1}, None, {"good": 1}]


async def test_a_stream_is_opened_again_after_deep_nesting_in_a_long_line() -> None:
    async with following(HEAD + b"[" * 100_000 + b"\n", HEAD + GOOD, limit=1 << 20) as (received, _):
        await auntil(lambda: len(received) >= 2)
        assert received == [None, {"good": 1}]


async def test_streams_that_end_at_once_are_opened_again_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep, test = asyncio.sleep, asyncio.current_task()

    async def recorded(seconds: float) -> None:
        if asyncio.current_task() is not test:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", recorded)
    async with following(*[HEAD + GOOD + b"bad\n"] * 5, HEAD + GOOD) as (received, _):
        await auntil(lambda: len(received) >= 11)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 2.0]


async def test_a_stream_that_lasted_is_opened_again_after_the_first_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LASTING", 0.0)
    async with following(*[HEAD + GOOD] * 4, HEAD + GOOD) as (received, requests):
        async with asyncio.timeout(4 * json_lines.FIRST_PAUSE + 1.0):
            await auntil(lambda: len(requests) == 5)
        assert received[:2] == [{"good": 1}, None]


async def test_a_line_that_never_ends_is_silence() -> None:
    """Each byte arrives in time, but no line does."""
    written = 0
    end, ended = asyncio.Event(), asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        while not end.is_set():
            writer.write(b" ")
            written += 1
            await asyncio.wait([asyncio.create_task(end.wait())], timeout=0.02)
        writer.close()
        ended.set()

    received: list[JsonObject | None] = []
    streams = JsonLineStreams(lambda name, value: received.append(value), read_timeout=0.2)
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        streams.follow({"one": Source("127.0.0.1", server.sockets[0].getsockname()[1], "/status")})
        await auntil(lambda: None in received)
        assert written > 3
        await streams.close()
        end.set()
        await ended.wait()


async def test_a_stream_is_opened_again_after_an_error_of_the_listener() -> None:
    received: list[JsonObject | None] = []

    def listen(_name: str, value: JsonObject | None) -> None:
        received.append(value)
        if len(received) == 1:
            raise RuntimeError("a fault of the gateway")

    streams = JsonLineStreams(listen, read_timeout=5.0)
    async with serving([HEAD + GOOD, HEAD + GOOD]) as (port, _):
        streams.follow({"one": Source("127.0.0.1", port, "/status")})
        await auntil(lambda: len(received) >= 3)
        assert received == [{"good": 1}, None, {"good": 1}]
        await streams.close()


async def test_the_request_names_the_model_whose_runner_is_expected() -> None:
    async with following(HEAD + GOOD, model="team/tiny uid-1") as (received, requests):
        await auntil(lambda: received)
        assert b"\r\ncorral-model-identity: team/tiny uid-1\r\n" in requests[0]
    async with following(HEAD + GOOD) as (received, requests):
        await auntil(lambda: received)
        assert b"corral-model-identity" not in requests[0]


async def test_the_runner_of_another_model_has_no_status() -> None:
    refusal = b"HTTP/1.1 421 Misdirected Request\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    async with following(refusal, HEAD + GOOD, model="team/tiny") as (received, _):
        await auntil(lambda: len(received) >= 2)
        assert received == [None, {"good": 1}]
