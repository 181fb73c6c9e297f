"""The activity stream against a server that a test scripts, one answer a connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from corral_core.activity import Activity
from corral_server.local.activity import follow
from tests.local.parts import run
from tests.support.planning import activity
from tests.support.waiting import auntil

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
IDLE, BUSY = activity(), activity(in_flight=1)


def chunk(*said: Activity) -> bytes:
    body = b"".join(json.dumps(each.to_json()).encode() + b"\n" for each in said)
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


@asynccontextmanager
async def following(answers: Sequence[bytes], *, silence: float = 5.0) -> AsyncIterator[list[Activity | None]]:
    """What is heard of a runner whose connections get these answers and are then cut; the last one stays open."""
    left, heard, held = list(answers), list[Activity | None](), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0) if left else b"")
        await writer.drain()
        if not left:
            await held.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    task = asyncio.create_task(follow(server.sockets[0].getsockname()[1], heard.append, silence=silence))
    try:
        yield heard
    finally:
        task.cancel()
        held.set()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()


def test_every_line_is_heard() -> None:
    async def test() -> None:
        async with following([HEAD + chunk(IDLE, BUSY) + chunk(IDLE)]) as heard:
            await auntil(lambda: len(heard) >= 3)
            assert heard == [IDLE, BUSY, IDLE]

    run(test())


def test_a_stream_that_breaks_is_opened_again_and_meanwhile_nothing_is_known() -> None:
    async def test() -> None:
        async with following([HEAD + chunk(IDLE), HEAD + chunk(BUSY)]) as heard:
            await auntil(lambda: len(heard) >= 3)
            assert heard[:3] == [IDLE, None, BUSY]

    run(test())


def test_after_a_long_silence_nothing_is_known() -> None:
    async def test() -> None:
        async with following([HEAD + chunk(IDLE)], silence=0.1) as heard:
            await auntil(lambda: None in heard)
            assert heard[:2] == [IDLE, None]

    run(test())


def test_answers_that_make_no_sense_are_survived() -> None:
    broken = [
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
        HEAD + b"3\r\n[]\n\r\n",
        HEAD + b"5\r\n{oh}\n\r\n",
        HEAD + b"3\r\n{}\n\r\n",
        HEAD + chunk(BUSY),
    ]

    async def test() -> None:
        async with following(broken) as heard:
            await auntil(lambda: BUSY in heard)
            assert heard == [None] * (len(broken) - 1) + [BUSY]

    run(test())
