"""The operator's HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import aiohttp
import pytest

from corral_operator.process.health import Health
from corral_operator.process.http_server import MAX_CONNECTIONS, Page, Pages, pages, serve_pages
from corral_operator.process.metrics import OperatorMetrics
from corral_operator.reconcile.work_queue import WorkQueue
from tests.support.waiting import auntil


async def get(table: Pages, path: str) -> tuple[int, str, str]:
    """Return status, content type and text."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        serve_pages(table, 0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as session,
        session.get(path) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_the_probes_follow_the_health() -> None:
    health = Health()
    served = pages(health, OperatorMetrics())
    assert await get(served, "/readyz") == (503, "text/plain; charset=utf-8", "starting\n")
    assert (await get(served, "/healthz"))[0] == 200
    health.begin_election(WorkQueue(), lambda: False)
    health.begin_leading()
    assert (await get(served, "/readyz"))[::2] == (200, "leader\n")


async def test_a_page_keeps_its_content_type_and_other_paths_are_not_found() -> None:
    table: Pages = {"/figures": lambda _: Page("a 1\n", content_type="text/plain; version=0.0.4")}
    assert await get(table, "/figures") == (200, "text/plain; version=0.0.4", "a 1\n")
    assert (await get(table, "/other"))[0] == 404


async def test_a_flood_of_idle_connections_leaves_the_probes_alive() -> None:
    async with serve_pages(pages(Health(), OperatorMetrics()), 0) as port:
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * MAX_CONNECTIONS)]
        for _, writer in flood[::2]:
            writer.write(b"GET /healthz HTTP/1.1\r\nhost")  # never completed
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            for _ in range(3):
                async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
                    assert answer.status == 200
        closed = [asyncio.ensure_future(_end(reader)) for reader, _ in flood]
        await auntil(lambda: sum(one.done() for one in closed) >= 2 * MAX_CONNECTIONS)
        for one in closed:
            one.cancel()
        for _, writer in flood:
            writer.close()


async def _end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()


async def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with serve_pages({}, taken.getsockname()[1]):
            pass
