"""Where the other gateways read what is held here: a port of its own, which no Service leads clients to.

It knows one path and no other, reads no body, and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import uvicorn

from corral_core.errors import InvalidSetting
from corral_server.gateway.messages import Receive, Scope, Send
from corral_server.gateway.peers.held import PATH, Board, Held

_GRACE = 1
"""Seconds that the streams get to end in."""


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


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the gateway drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def peer_server(board: Board, host: str, port: int) -> AsyncIterator[int]:
    """Serves until the block ends; gives the port. Raises InvalidSetting when it cannot listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidSetting(f"CORRAL_PEER_PORT={port}: cannot listen on {host}: {error.strerror or error}") from error
    config = uvicorn.Config(
        PeerApp(board),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="what is held, for other gateways")
    try:
        bound: int = listener.getsockname()[1]
        yield bound
    finally:
        board.close()
        server.should_exit = True
        await task
        listener.close()


async def _start(send: Send, status: int, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})


def _line(held: Held) -> bytes:
    return json.dumps(held.to_json(), separators=(",", ":")).encode() + b"\n"


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
