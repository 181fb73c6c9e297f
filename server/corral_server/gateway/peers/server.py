"""Server of the usage reports for peers, on a separate port that no Service exposes to clients.

It serves one path, reads no body, and is read-only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral_server.gateway.http_server.internal_server import Receive, Scope, Send, internal_server
from corral_server.gateway.peers.usage import PATH, UsagePublisher, UsageReport


class PeerApp:
    """The ASGI application."""

    def __init__(self, publisher: UsagePublisher) -> None:
        self._publisher = publisher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET" or scope["path"] != PATH:
            await _start_response(send, 404, b"text/plain")
            await send({"type": "http.response.body", "body": b"not found"})
            return
        await _start_response(send, 200, b"application/x-ndjson")
        if scope["query_string"] == b"watch=true":
            await self._stream(receive, send)
        else:
            await send({"type": "http.response.body", "body": _line(self._publisher.report())})

    async def _stream(self, receive: Receive, send: Send) -> None:
        """Stream until the publisher closes or the peer disconnects."""
        tasks = (asyncio.create_task(self._write(send)), asyncio.create_task(_wait_for_disconnect(receive)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        async for report in self._publisher.watch():
            await send({"type": "http.response.body", "body": _line(report), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def peer_server(publisher: UsagePublisher, host: str, port: int) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port. Raises InvalidSetting if it cannot listen."""
    async with internal_server(
        PeerApp(publisher), host, port, setting="CORRAL_PEER_PORT", on_shutdown=publisher.close
    ) as bound:
        yield bound


async def _start_response(send: Send, status: int, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})


def _line(report: UsageReport) -> bytes:
    return json.dumps(report.to_json(), separators=(",", ":")).encode() + b"\n"


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
