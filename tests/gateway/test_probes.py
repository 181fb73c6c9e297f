"""Probes on a port of their own, which answers during a flood of client connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from corral_server.gateway.http_server.internal_server import MAX_CONNECTIONS
from corral_server.gateway.http_server.limits import ERROR_CONNECTIONS, Limits
from corral_server.gateway.probes import probe_server
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, running_gateway
from tests.support.gateway_process import gateway_process
from tests.support.ports import free_port
from tests.support.waiting import auntil, until


@asynccontextmanager
async def probed(gateway: RunningGateway) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    """Serve the probes of the gateway; yield a client and the port. Each request has a connection of its own."""
    async with probe_server("127.0.0.1", 0, gateway.server.readiness) as port:
        once = {"connection": "close"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=once, trust_env=False, timeout=10
        ) as client:
            yield client, port


async def test_a_flood_of_connections_to_the_api_leaves_the_probes_alive() -> None:
    limits = Limits(connections=2)
    async with running_gateway(MemoryDirectory(), limits=limits) as gateway, probed(gateway) as (probes, _):
        flood = [await gateway.connect() for _ in range(2 + ERROR_CONNECTIONS)]
        await auntil(lambda: gateway.server.open_connections == len(flood))
        with pytest.raises(httpx.TransportError):
            await gateway.http.get("/readyz")
        for path in ("/readyz", "/healthz"):
            assert (await probes.get(path)).status_code == 200
        for _, writer in flood:
            writer.close()


async def test_a_flood_of_idle_connections_to_the_probes_leaves_them_alive() -> None:
    async with running_gateway(MemoryDirectory()) as gateway, probed(gateway) as (probes, port):
        flood = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * MAX_CONNECTIONS)]
        for _, writer in flood[::2]:
            writer.write(b"GET /readyz HTTP/1.1\r\nhost")  # never completed
        for path in ("/readyz", "/healthz"):
            assert (await probes.get(path)).status_code == 200
        reader, _ = flood[0]
        assert await asyncio.wait_for(_end(reader), 10) == b"", "the oldest was closed"
        for _, writer in flood:
            writer.close()


async def test_readiness_follows_the_gateway() -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    directory.ready = False
    async with running_gateway(directory) as gateway, probed(gateway) as (probes, _):
        assert (await probes.get("/readyz")).status_code == 503
        assert (await probes.get("/healthz")).status_code == 200
        directory.ready = True
        assert (await probes.get("/readyz")).text == "ready"
        assert (await probes.get("/api/tags")).status_code == 404
        gateway.gateway.drain()
        response = await probes.get("/readyz")
        assert (response.status_code, response.text) == (503, "the gateway is shutting down")
        assert (await probes.get("/healthz")).status_code == 200


@pytest.mark.process
async def test_the_process_serves_the_port_that_the_setting_names() -> None:
    port = free_port()
    async with fake_upstream() as upstream:
        with gateway_process(upstream.port, CORRAL_PROBE_PORT=str(port)) as process:
            assert process.port
            response = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/readyz", trust_env=False)
            assert response.status_code == 200
            process.process.terminate()
            until(lambda: process.process.poll() == 0, 20, what="the end of the gateway")


async def _end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
