"""The Models as the page shows them."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

from corral_core.base.timestamps import parse_timestamp
from corral_server.gateway.directory.directory import ObservedState, PullingFile
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.peers.usage import UsageReport
from tests.gateway.ui.test_events import open_events
from tests.support.fake_upstream import Call, fake_upstream
from tests.support.gateway import METADATA, MemoryDirectory, entry, running_gateway
from tests.support.planning import NOW, runner_status

IDLE = replace(runner_status(), in_flight=0, size_bytes=1000, vram_bytes=400, generated_tokens=10)


async def idle_runner(call: Call) -> None:
    """Stream the status of an idle runner, which expires in 100 seconds."""
    status = replace(IDLE, expires_at=NOW + 100).to_json(NOW)
    await stream_lines(call, json.dumps(status))


async def stream_lines(call: Call, *lines: str) -> None:
    await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
    for line in lines:
        await call.chunk(line.encode() + b"\n")
    await call.wait_closed()


async def test_an_idle_model_has_its_weights_and_no_runner() -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    directory.states["default/tiny"] = ObservedState("Idle", "no requests", namespace="default", gpus=0)
    async with running_gateway(directory) as gateway, open_events(gateway) as events:
        model = (await events.next())["models"][0]
    assert model == {
        "name": "tiny:latest",
        "namespace": "default",
        "names": ["tiny:latest"],
        "phase": "Idle",
        "reason": "no requests",
        "pending": 0,
        "slotsUsed": 0,
        "slots": 0,
        "replicas": 0,
        "replicasReady": 0,
        "gpus": 0,
        "memoryBytes": 0,
        "vramBytes": 0,
        "nodes": [],
        "tokensPerSecond": None,
        "pull": None,
        "expiresAt": None,
        "sizeBytes": METADATA.size,
        "family": METADATA.family,
        "parameterSize": METADATA.parameter_size,
        "quantization": METADATA.quantization_level,
        "contextLength": METADATA.context_length,
        "capabilities": list(METADATA.capabilities),
    }


async def test_the_progress_of_a_pull_is_sent_and_unknown_weights_are_null() -> None:
    half = (PullingFile("ab" * 32, 1000, 430),)
    directory = MemoryDirectory.of(entry("tiny", metadata=None, pulling=half), entry("big", metadata=None, pulling=()))
    async with running_gateway(directory) as gateway, open_events(gateway) as events:
        tiny, big = (await events.next())["models"]
    assert tiny["pull"] == {"completedBytes": 430, "totalBytes": 1000}
    assert big["pull"] == {"completedBytes": 0, "totalBytes": None}
    assert (tiny["sizeBytes"], tiny["family"], tiny["capabilities"]) == (None, "", [])


async def test_a_loaded_model_has_the_memory_and_the_expiry_of_its_runners() -> None:
    async with fake_upstream(idle_runner) as first, fake_upstream(idle_runner) as second:
        directory = MemoryDirectory.of(entry("tiny", first.port, second.port))
        async with running_gateway(directory) as gateway, open_events(gateway) as events:
            model = (await events.next())["models"][0]
            assert (model["slots"], model["memoryBytes"]) == (8, None), "not known before the runners have answered"
            while model["memoryBytes"] is None:
                model = (await events.next())["models"][0]
    assert (model["memoryBytes"], model["vramBytes"], model["gpus"]) == (2000, 800, 0)
    assert (model["slotsUsed"], model["tokensPerSecond"]) == (0, 0.0)
    expires = parse_timestamp(model["expiresAt"])
    assert expires is not None
    assert 60 < expires - time.time() < 101


async def test_pending_requests_are_those_of_all_gateways() -> None:
    peers = Peers("gateway")
    peers.set_members(["other"])
    async with running_gateway(MemoryDirectory.of(entry("tiny")), peers=peers) as gateway:
        asked = asyncio.create_task(gateway.chat())
        await gateway.until_pending(1)
        peers.receive("other", UsageReport("other", pending={"default/tiny": 2}).to_json())
        async with open_events(gateway) as events:
            assert (await events.next())["models"][0]["pending"] == 3
        peers.close()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
