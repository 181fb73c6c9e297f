"""HTTP server on a port that clients do not use, for probes, metrics scrapes and peers.

It has at most ``MAX_CONNECTIONS`` connections. A new one then closes the oldest that has no request, so that idle
connections, however many, do not keep a probe out.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from corral_core.base.errors import InvalidSetting

MAX_CONNECTIONS = 128
"""More than an installation has gateway replicas: each replica holds one connection to the usage reports."""
_GRACE = 1
"""Seconds for streams to end during shutdown."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Connection(HttpToolsProtocol):
    """Connection that is closed for a newer one while it has no request."""

    _opened = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._opened = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, _Connection) and one._is_idle()]
            min(idle, key=lambda one: one._opened).transport.abort()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the gateway drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def internal_server(
    app: App, host: str, port: int, *, setting: str, on_shutdown: Callable[[], None] = lambda: None
) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port. ``on_shutdown`` is called before the server stops.

    Raises InvalidSetting, which names the ``setting``, if it cannot listen.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidSetting(f"{setting}={port}: cannot listen on {host}: {error.strerror or error}") from error
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"internal server on port {port}")
    try:
        bound: int = listener.getsockname()[1]
        yield bound
    finally:
        on_shutdown()
        server.should_exit = True
        await task
        listener.close()


async def send_response(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
