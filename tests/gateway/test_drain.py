"""Graceful shutdown of a gateway process on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from corral_server.gateway.proxy.relay import SHUTTING_DOWN
from tests.support.fake_upstream import Call, FakeUpstream, fake_upstream, reply
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.waiting import auntil

pytestmark = pytest.mark.process


class Draining:
    """A gateway with one slot, which a stream holds while a second request is queued."""

    def __init__(self, gateway: GatewayProcess, upstream: FakeUpstream, http: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.http = http
        self.stream = asyncio.create_task(self._ask("/api/chat"))
        self.held: asyncio.Task[httpx.Response]

    async def _ask(self, path: str) -> httpx.Response:
        return await self.http.post(path, json={"model": "tiny"})

    async def begin(self) -> None:
        await auntil(lambda: self.upstream.calls)
        self.held = asyncio.create_task(self._ask("/v1/chat/completions"))

    def end(self) -> None:
        self.gateway.process.send_signal(signal.SIGTERM)

    async def status(self, path: str) -> int:
        """Request over a new connection; 0 when it is refused, or ended because the listener closed first."""
        async with httpx.AsyncClient(base_url=self.http.base_url, trust_env=False) as http:
            try:
                return (await http.get(path)).status_code
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
                return 0

    async def ended(self) -> int:
        return await asyncio.to_thread(self.gateway.process.wait, 30)


@asynccontextmanager
async def draining(go_on: asyncio.Event, **settings: str) -> AsyncIterator[Draining]:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        await go_on.wait()
        await call.chunk(b'{"n":2}\n')
        await call.write(b"0\r\n\r\n")

    async with fake_upstream(reply(), behave) as upstream:
        with gateway_process(upstream.port, **settings) as gateway:
            port = await asyncio.to_thread(lambda: gateway.port)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
                scene = Draining(gateway, upstream, http)
                await scene.begin()
                await auntil(lambda: _answers(scene, "/readyz", 200), what="it is ready")
                yield scene


async def _answers(scene: Draining, path: str, status: int) -> bool:
    return await scene.status(path) == status


async def test_readiness_ends_before_listening_and_pending_requests_are_served() -> None:
    go_on = asyncio.Event()
    async with (
        draining(go_on, CORRAL_DRAIN_DELAY="3s", CORRAL_DRAIN_TIMEOUT="60s") as scene,
        httpx.AsyncClient(base_url=scene.http.base_url, trust_env=False) as kept,
    ):
        assert "connection" not in (await kept.get("/api/version")).headers
        scene.end()
        await auntil(lambda: _answers(scene, "/readyz", 503), what="readiness is off")
        assert await scene.status("/healthz") == 200
        assert await scene.status("/api/version") == 200, "new connections are still served"
        for answer in (await kept.get("/api/version"), await scene.http.get("/api/version")):
            assert answer.headers["connection"] == "close", "a response is its connection's last"
        await auntil(lambda: _answers(scene, "/api/version", 0), what="the listening socket is closed")
        assert scene.gateway.process.poll() is None
        assert not scene.stream.done()
        assert not scene.held.done()
        go_on.set()
        assert (await scene.stream).text == '{"n":1}\n{"n":2}\n'
        assert (await scene.held).status_code == 200
        assert await scene.ended() == 0


async def test_requests_left_after_the_drain_get_an_error_and_the_exit_is_clean() -> None:
    async with draining(asyncio.Event(), CORRAL_DRAIN_TIMEOUT="1s") as scene:
        scene.end()
        held = await scene.held
        assert (held.status_code, held.json()["error"]["message"]) == (503, SHUTTING_DOWN)
        lines = [json.loads(line) for line in (await scene.stream).text.splitlines()]
        assert lines == [{"n": 1}, {"error": SHUTTING_DOWN}]
        assert await scene.ended() == 0
