"""A port beside the one that clients use, for what they have no business with: monitors, the other gateways."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import uvicorn

from corral_core.errors import InvalidSetting
from corral_server.gateway.messages import Receive, Scope, Send

_GRACE = 1
"""Seconds that streams get to end in."""

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the gateway drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def side_server(
    app: App, host: str, port: int, *, setting: str, ending: Callable[[], None] = lambda: None
) -> AsyncIterator[int]:
    """Serves until the block ends; gives the port. ``ending`` is called first then.

    Raises InvalidSetting, which names the ``setting``, when it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidSetting(f"{setting}={port}: cannot listen on {host}: {error.strerror or error}") from error
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"port {port} beside the clients'")
    try:
        bound: int = listener.getsockname()[1]
        yield bound
    finally:
        ending()
        server.should_exit = True
        await task
        listener.close()


async def answer(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
