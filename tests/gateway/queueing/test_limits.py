"""Default queue limits of the installation."""

from __future__ import annotations

import asyncio

from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.queueing.limits import QueueLimits
from tests.gateway.queueing.test_dispatcher import queued
from tests.support.gateway import MemoryDirectory, entry, running_gateway

SOON = 0.3


async def test_the_default_limits_apply_to_models_without_limits() -> None:
    own = queued("own", maxPending=2, maxWait="1h")
    directory = MemoryDirectory.of(entry("tiny"), own)
    async with running_gateway(directory, queue_limits=QueueLimits(max_pending=1, max_wait=SOON), drain=0.1) as gateway:
        waiting = [asyncio.create_task(gateway.chat("own")) for _ in range(2)]
        await gateway.until_pending(2)
        first = asyncio.create_task(gateway.chat())
        await gateway.until_pending(3)
        assert [(await gateway.chat(name)).status_code for name in ("tiny", "own")] == [503, 503]
        assert (await first).status_code == 504
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()


def test_the_default_limits_are_settings() -> None:
    assert GatewayConfig.from_environment({}).queue_limits == QueueLimits()
    settings = {"CORRAL_MAX_PENDING": "7", "CORRAL_MAX_WAIT": "2m"}
    assert GatewayConfig.from_environment(settings).queue_limits == QueueLimits(7, 120.0)
