"""The connection to the API server, against a server that counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from corral_kube import client
from corral_kube.client import Kube, connect
from tests.support.waiting import auntil

CONFIG = """\
{{apiVersion: v1, kind: Config, current-context: t, users: [{{name: t, user: {{token: x}}}}],
  clusters: [{{name: t, cluster: {{server: "http://127.0.0.1:{port}"}}}}],
  contexts: [{{name: t, context: {{cluster: t, user: t}}}}]}}
"""


def test_one_connection_is_kept_open_and_is_there_for_what_comes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(client, "KEEPING", 0.01)
    asked: list[tuple[str, object]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.transport))
        status = 500 if len(asked) == 1 else 200  # a failure ends nothing
        return web.json_response({}, status=status)

    async def scenario(kube: Kube) -> None:
        keeping = asyncio.create_task(kube.keep_open())
        await auntil(lambda: len(asked) >= 3)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await kube.get("/wanted")
        assert asked[-1][0] == "/wanted"
        assert len({id(transport) for _, transport in asked}) == 1
        await kube.close()

    async def served() -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            file = tmp_path / "config"
            file.write_text(CONFIG.format(port=runner.addresses[0][1]))
            await scenario(await connect(str(file), manager="test"))
        finally:
            await runner.cleanup()

    asyncio.run(asyncio.wait_for(served(), 20))
