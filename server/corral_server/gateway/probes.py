"""Probes for the kubelet, on a port of their own.

- They share neither the connection limit nor TLS with the clients, so a flood of client connections leaves them alive.
- ``/healthz``: the event loop runs. ``/readyz``: the API port listens, the Models are listed, no shutdown has begun.
- The API port answers both paths too, for load balancers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from corral_core.base.settings import int_setting
from corral_server.gateway.http_server.internal_server import Receive, Scope, Send, internal_server, send_response
from corral_server.gateway.messages import TEXT_TYPE, Response

_PLAIN = TEXT_TYPE.decode()
_ALIVE = Response(200, b"alive", TEXT_TYPE)
_NOT_FOUND = Response(404, b"not found", TEXT_TYPE)


def probe_port(environ: Mapping[str, str]) -> int:
    """Return the port of the probes, 0 for none. Raises InvalidSetting."""
    return int_setting(environ, "CORRAL_PROBE_PORT", default=0, minimum=0, maximum=65535)


@asynccontextmanager
async def probes_if(port: int, host: str, readiness: Callable[[], Response]) -> AsyncIterator[None]:
    """Serve the probes until the block ends, unless ``port`` is 0. Raises InvalidSetting if it cannot listen."""
    if not port:
        yield
        return
    async with probe_server(host, port, readiness):
        yield


@asynccontextmanager
async def probe_server(host: str, port: int, readiness: Callable[[], Response]) -> AsyncIterator[int]:
    """Serve the probes until the block ends; yields the port. ``readiness`` returns the response to ``/readyz``."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        response = {"/healthz": _ALIVE, "/readyz": readiness()}.get(scope["path"], _NOT_FOUND)
        await send_response(send, response.status, response.body, _PLAIN)

    async with internal_server(app, host, port, setting="CORRAL_PROBE_PORT") as bound:
        yield bound
