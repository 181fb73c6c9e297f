"""The operator's small HTTP server: a table of pages, read with GET by kubelets and monitors.

A page is a function that answers at once from memory, so nothing here waits; another page is another line in the table
that ``pages`` returns.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from corral_core.metrics import CONTENT_TYPE
from corral_operator import logs
from corral_operator.health import Health, Verdict
from corral_operator.metrics import Measures

PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    text: str
    status: int = 200
    content_type: str = PLAIN


Pages = Mapping[str, Callable[[], Page]]


def pages(health: Health, measures: Measures) -> Pages:
    """What is served at which path."""
    return {
        "/metrics": lambda: Page(measures.text(), content_type=CONTENT_TYPE),
        "/healthz": lambda: _verdict(health.alive()),
        "/readyz": lambda: _verdict(health.ready()),
    }


@asynccontextmanager
async def serving(table: Pages, port: int) -> AsyncIterator[int]:
    """Serves on all addresses of the machine until the block ends; yields the port. Port 0: the system chooses.

    Raises OSError when the port is taken.
    """
    application = web.Application()
    for path, page in table.items():
        application.router.add_get(path, _handler(page))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listener = _listener(port)
        await web.SockSite(runner, listener).start()
        bound = int(listener.getsockname()[1])
        logs.event("listening", port=bound)
        yield bound
    finally:
        await runner.cleanup()


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _handler(page: Callable[[], Page]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        made = page()
        headers = {"Content-Type": made.content_type}
        return web.Response(status=made.status, body=made.text.encode(), headers=headers)

    return answer


def _verdict(verdict: Verdict) -> Page:
    return Page(verdict.text + "\n", 200 if verdict.good else 503)
