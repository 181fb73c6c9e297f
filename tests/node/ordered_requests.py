"""Many requests in a known order: each is sent after the gateway has read the one before.

The gateway reads its connections in the order in which bytes arrive. So a response to a request that was sent later on
another connection proves that the earlier one was read. The runner's own timestamps give the order in which it served
them, however late this machine reads the responses.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from corral_core.base.timestamps import parse_timestamp

_LIMIT = 1 << 20
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class CompletedRequest:
    """A completed request. ``began`` is the runner's time of its first token (Unix seconds); ``at`` is the client's."""

    gateway: str
    status: int
    began: float
    ends: int
    tokens: int
    at: float


async def ask_in_order(
    gateways: Sequence[str], model: str, *, count: int, timeout: float
) -> tuple[float, list[CompletedRequest]]:
    """Send ``count`` requests to the gateways (``host:port``) round robin; all of them are pending at the same time.

    Returns the time at which the last one had been read by its gateway, and all results in the order of sending.
    """
    async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
        beside = {gateway: await _connect(gateway) for gateway in gateways}
        answers = []
        try:
            for number in range(count):
                gateway = gateways[number % len(gateways)]
                reader, writer = await _connect(gateway)
                writer.write(_request(model, number))
                await writer.drain()
                answers.append(group.create_task(_answer(gateway, reader, writer)))
                await _barrier(*beside[gateway])
        finally:
            for _, writer in beside.values():
                writer.close()
        arrived = time.monotonic()
    return arrived, [answer.result() for answer in answers]


async def _connect(gateway: str) -> _Connection:
    host, _, port = gateway.rpartition(":")
    return await asyncio.open_connection(host, int(port), limit=_LIMIT)


def _request(model: str, number: int) -> bytes:
    options = {"num_predict": 2, "temperature": 0.0, "seed": 1}
    body = json.dumps({"model": model, "prompt": f"Say the number {number}.", "options": options}).encode()
    head = f"POST /api/generate HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _barrier(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send another request to the same gateway and wait for its response."""
    writer.write(b"HEAD /api/version HTTP/1.1\r\nhost: test\r\n\r\n")
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer


async def _answer(gateway: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> CompletedRequest:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        parts = [json.loads(line) for line in (await reader.read(-1)).splitlines() if line.startswith(b"{")]
    finally:
        writer.close()
    done = [part for part in parts if part.get("done")]
    return CompletedRequest(
        gateway=gateway,
        status=int(head.split()[1]),
        began=parse_timestamp(str(parts[0].get("created_at"))) or 0.0,
        ends=len(done),
        tokens=int(done[0]["eval_count"]) if done else 0,
        at=time.monotonic(),
    )
