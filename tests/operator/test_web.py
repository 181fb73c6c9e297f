"""The operator's HTTP server."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from corral_operator.health import Health
from corral_operator.metrics import Measures
from corral_operator.web import Page, Pages, pages, serving
from corral_operator.workqueue import WorkQueue


async def get(table: Pages, path: str) -> tuple[int, str, str]:
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        serving(table, 0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=timeout) as session,
        session.get(path) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


def test_the_probes_follow_the_operators_health() -> None:
    health = Health()
    assert asyncio.run(get(pages(health, Measures()), "/readyz")) == (503, "text/plain; charset=utf-8", "starting\n")
    assert asyncio.run(get(pages(health, Measures()), "/healthz"))[0] == 200
    health.begin(WorkQueue(), lambda: False)
    health.act()
    assert asyncio.run(get(pages(health, Measures()), "/readyz"))[::2] == (200, "acting\n")


def test_a_page_keeps_its_type_and_another_path_is_not_there() -> None:
    table = {"/figures": lambda: Page("a 1\n", content_type="text/plain; version=0.0.4")}
    assert asyncio.run(get(table, "/figures")) == (200, "text/plain; version=0.0.4", "a 1\n")
    assert asyncio.run(get(table, "/other"))[0] == 404


def test_a_port_that_is_taken_is_an_error() -> None:
    async def scenario(port: int) -> None:
        async with serving({}, port):
            pass

    with socket.create_server(("0.0.0.0", 0)) as taken, pytest.raises(OSError, match="in use"):
        asyncio.run(scenario(taken.getsockname()[1]))
