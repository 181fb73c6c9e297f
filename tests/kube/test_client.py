"""Kubernetes client against a server that counts connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from corral_kube import client
from corral_kube.calls import APICallMetrics
from corral_kube.client import KubeClient, connect
from corral_kube.errors import APIServerUnreachable, WriteNotAllowed
from tests.support.waiting import auntil

CONFIG = """\
{{apiVersion: v1, kind: Config, current-context: t, users: [{{name: t, user: {{token: x}}}}],
  clusters: [{{name: t, cluster: {{server: "http://127.0.0.1:{port}"}}}}],
  contexts: [{{name: t, context: {{cluster: t, user: t}}}}]}}
"""


async def test_connection_is_kept_open_and_reused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client, "KEEP_OPEN_INTERVAL", 0.01)
    requests: list[tuple[str, object]] = []

    async def respond(request: web.Request) -> web.Response:
        requests.append((request.path, request.transport))
        if len(requests) == 3:  # none is in progress when the test sends its own
            monkeypatch.setattr(client, "KEEP_OPEN_INTERVAL", 60)
        status = 500 if len(requests) == 1 else 200  # a failure must not end the loop
        return web.json_response({}, status=status)

    application = web.Application()
    application.router.add_get("/{path:.*}", respond)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        file = tmp_path / "config"
        file.write_text(CONFIG.format(port=runner.addresses[0][1]))
        calls = APICallMetrics()
        kube = await connect(str(file), manager="test", calls=calls)
        keep_open = asyncio.create_task(kube.keep_open())
        try:
            await auntil(lambda: calls.counts.total() == 3)
            await kube.get("/other")
        finally:
            keep_open.cancel()
            await asyncio.gather(keep_open, return_exceptions=True)
            await kube.close()
        assert requests[-1][0] == "/other"
        assert len({id(transport) for _, transport in requests}) == 1
    finally:
        await runner.cleanup()


@asynccontextmanager
async def served(respond: Callable[[web.Request], Awaitable[web.Response]], folder: Path) -> AsyncIterator[KubeClient]:
    """Yield a client of a server with this handler."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        file = folder / "config"
        file.write_text(CONFIG.format(port=runner.addresses[0][1]))
        kube = await connect(str(file), manager="test")
        yield kube
        await kube.close()
    finally:
        await runner.cleanup()


async def test_a_fenced_client_sends_no_write_when_its_time_is_over(tmp_path: Path) -> None:
    received: list[tuple[str, str]] = []

    async def respond(request: web.Request) -> web.Response:
        received.append((request.method, request.query.get("timeout", "")))
        return web.json_response({})

    remaining = 9.5
    async with served(respond, tmp_path) as kube:
        fenced = kube.fenced(lambda: remaining)
        await fenced.apply("/x", {})
        remaining = 0.0
        for write in (
            fenced.apply("/x", {}),
            fenced.create("/x", {}),
            fenced.replace("/x", {}),
            fenced.delete("/x", uid="u"),
        ):
            with pytest.raises(WriteNotAllowed):
                await write
        await fenced.get("/x")
        await kube.create("/x", {})
    assert received == [("PATCH", "9.500s"), ("GET", ""), ("POST", "")]


async def test_a_fenced_write_without_a_response_is_given_up_when_its_time_is_over(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        transport = request.transport
        await auntil(lambda: transport is None or transport.is_closing())
        closed.set()
        return web.json_response({})

    async with served(hang, tmp_path) as kube:
        with pytest.raises(APIServerUnreachable):
            await kube.fenced(lambda: 0.2).apply("/x", {})
        await closed.wait()
