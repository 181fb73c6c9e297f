"""Where the other gateways read what is held here: a port of its own, which no Service leads clients to.

It knows one path and no other, reads no body, and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral_server.gateway.messages import Receive, Scope, Send
from corral_server.gateway.peers.held import PATH, Board, Held
from corral_server.gateway.side import side_server


class PeerApp:
    """The ASGI application."""

    def __init__(self, board: Board) -> None:
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET" or scope["path"] != PATH:
            await _start(send, 404, b"text/plain")
            await send({"type": "http.response.body", "body": b"not found"})
            return
        await _start(send, 200, b"application/x-ndjson")
        if scope["query_string"] == b"watch=true":
            await self._stream(receive, send)
        else:
            await send({"type": "http.response.body", "body": _line(self._board.held())})

    async def _stream(self, receive: Receive, send: Send) -> None:
        """Until the board closes or the reader leaves."""
        tasks = (asyncio.create_task(self._write(send)), asyncio.create_task(_departure(receive)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        async for held in self._board.watch():
            await send({"type": "http.response.body", "body": _line(held), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def peer_server(board: Board, host: str, port: int) -> AsyncIterator[int]:
    """Serves until the block ends; gives the port. Raises InvalidSetting when it cannot listen there."""
    async with side_server(PeerApp(board), host, port, setting="CORRAL_PEER_PORT", ending=board.close) as bound:
        yield bound


async def _start(send: Send, status: int, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})


def _line(held: Held) -> bytes:
    return json.dumps(held.to_json(), separators=(",", ":")).encode() + b"\n"


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
