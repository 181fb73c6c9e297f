"""HTTP server of the operator: metrics for Prometheus and probes for the kubelet.

- Every page is a function that answers from memory at once.
- A connection above ``MAX_CONNECTIONS`` closes the oldest one, so a flood of connections does not keep a probe out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from corral_operator import logs
from corral_operator.process.health import Health, ProbeResult
from corral_operator.process.metrics import OperatorMetrics

PLAIN = "text/plain; charset=utf-8"
MAX_CONNECTIONS = 128


@dataclass(frozen=True, slots=True)
class Page:
    body: str | bytes
    status: int = 200
    content_type: str = PLAIN


Pages = Mapping[str, Callable[[str], Page]]
"""Path to the function that builds the page for the request's ``Accept`` header."""


def pages(health: Health, metrics: OperatorMetrics) -> Pages:
    """Return the pages by path."""
    return {
        "/metrics": lambda accept: _exposition_page(metrics, accept),
        "/healthz": lambda _: _probe_page(health.alive()),
        "/readyz": lambda _: _probe_page(health.ready()),
    }


@asynccontextmanager
async def serve_pages(table: Pages, port: int) -> AsyncIterator[int]:
    """Serve on all addresses of the machine until the block ends; yield the port. Port 0: the system chooses one.

    Raises OSError when the port is in use.
    """
    application = web.Application()
    for path, page in table.items():
        application.router.add_get(path, _handler(page))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listener = _listener(port)
        server = await asyncio.get_running_loop().create_server(_protocol_factory(runner), sock=listener)
        try:
            bound = int(listener.getsockname()[1])
            logs.event("listening", port=bound)
            yield bound
        finally:
            server.close()
    finally:
        await runner.cleanup()


def _protocol_factory(runner: web.AppRunner) -> Callable[[], RequestHandler]:
    """Return a function that makes the protocol of a new connection, and closes the oldest one above the limit."""
    server = runner.server
    assert server is not None, "setup() comes first"

    def make() -> RequestHandler:
        connected = [one.transport for one in server.connections if one.transport is not None]
        for oldest in connected[: max(0, len(connected) + 1 - MAX_CONNECTIONS)]:
            oldest.abort()
        return server()

    return make


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _handler(page: Callable[[str], Page]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def respond(request: web.Request) -> web.Response:
        response = page(request.headers.get("Accept", ""))
        body = response.body.encode() if isinstance(response.body, str) else response.body
        return web.Response(status=response.status, body=body, headers={"Content-Type": response.content_type})

    return respond


def _exposition_page(metrics: OperatorMetrics, accept: str) -> Page:
    body, content_type = metrics.exposition(accept)
    return Page(body, content_type=content_type)


def _probe_page(result: ProbeResult) -> Page:
    return Page(result.text + "\n", 200 if result.healthy else 503)
