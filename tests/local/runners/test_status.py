"""Runner status stream against a scripted server, one response per connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from corral_core.contracts.runner_status import RunnerStatus
from corral_server.local.runners.status import follow_runner_status
from tests.support.planning import NOW, runner_status
from tests.support.waiting import auntil

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
IDLE, BUSY = runner_status(), runner_status(in_flight=1)


def chunk(*statuses: RunnerStatus, text: bytes = b"") -> bytes:
    body = text + b"\n" if text else b""
    body += b"".join(json.dumps(each.to_json(NOW)).encode() + b"\n" for each in statuses)
    return f"{len(body):x}\r\n".encode() + body + b"\r\n"


@asynccontextmanager
async def following(responses: Sequence[bytes], *, timeout: float = 5.0) -> AsyncIterator[list[bool | None]]:
    """Return the statuses from a runner whose connections get these responses and are then cut; the last stays open.

    Of a status it is kept whether the runner is busy.
    """
    remaining, statuses, closing = list(responses), list[bool | None](), asyncio.Event()

    def received(status: RunnerStatus | None) -> None:
        statuses.append(None if status is None else status.busy)

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(remaining.pop(0) if remaining else b"")
        await writer.drain()
        if not remaining:
            await closing.wait()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(follow_runner_status(port, "default/tiny", received, timeout=timeout))
    try:
        yield statuses
    finally:
        task.cancel()
        closing.set()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()


async def test_every_line_is_a_status() -> None:
    async with following([HEAD + chunk(IDLE, BUSY) + chunk(IDLE)]) as statuses:
        await auntil(lambda: len(statuses) >= 3)
        assert statuses == [False, True, False]


async def test_a_broken_stream_is_reopened_and_the_status_is_unknown_meanwhile() -> None:
    async with following([HEAD + chunk(IDLE), HEAD + chunk(BUSY)]) as statuses:
        await auntil(lambda: len(statuses) >= 3)
        assert statuses[:3] == [False, None, True]


async def test_the_status_is_unknown_after_three_heartbeats() -> None:
    async with following([HEAD + chunk(IDLE)], timeout=0.1) as statuses:
        await auntil(lambda: None in statuses)
        assert statuses[:2] == [False, None]


async def test_malformed_responses_are_ignored() -> None:
    broken = [
        b"not HTTP\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
        HEAD + b"3\r\n[]\n\r\n",
        HEAD + b"5\r\n{oh}\n\r\n",
        HEAD + b"3\r\n{}\n\r\n",
        HEAD + chunk(text=b"[" * 20_000),
        HEAD + chunk(text=json.dumps({**IDLE.to_json(NOW), "expires_in_s": 1e300}).encode()),
        HEAD + chunk(text=b" " * 100_000),
        HEAD + chunk(BUSY),
    ]

    async with following(broken) as statuses:
        await auntil(lambda: True in statuses)
        assert statuses == [None] * (len(broken) - 1) + [True]
