"""HTTP server that answers like an API server, with any bytes, for tests of clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from corral_kube.client import KubeClient, connect

CONFIG = """\
{{apiVersion: v1, kind: Config, current-context: t, users: [{{name: t, user: {{token: x}}}}],
  clusters: [{{name: t, cluster: {{server: "http://127.0.0.1:{port}"}}}}],
  contexts: [{{name: t, context: {{cluster: t, user: t}}}}]}}
"""

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(respond: Respond) -> AsyncIterator[int]:
    """Serve every path by ``respond``; yield the port."""
    application = web.Application()
    application.router.add_get("/{path:.*}", respond)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port: int = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client_of(respond: Respond, folder: Path) -> AsyncIterator[KubeClient]:
    """Yield a client of a server that responds by ``respond``."""
    async with served(respond) as port:
        file = folder / "config"
        file.write_text(CONFIG.format(port=port))
        kube = await connect(str(file), manager="test")
        try:
            yield kube
        finally:
            await kube.close()


def nested(depth: int) -> str:
    """Return the JSON of an object of this depth."""
    return '{"a":' * depth + "1" + "}" * depth
