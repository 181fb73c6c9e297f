"""Bounds on what waits for a Model that hold for the whole installation."""

from __future__ import annotations

import asyncio

from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.routing.bounds import Bounds
from tests.gateway.test_dispatch import queued
from tests.support.gateway import MemoryDirectory, entry, run, running_gateway

SOON = 0.3


def test_bounds_of_the_installation_hold_for_models_that_say_nothing() -> None:
    async def scenario() -> None:
        own = queued("own", maxPending=2, maxWait="1h")
        directory = MemoryDirectory.of(entry("tiny"), own)
        async with running_gateway(directory, bounds=Bounds(pending=1, wait=SOON), drain=0.1) as gateway:
            waiting = [asyncio.create_task(gateway.chat("own")) for _ in range(2)]
            await gateway.until_waiting(2)
            first = asyncio.create_task(gateway.chat())
            await gateway.until_waiting(3)
            assert [(await gateway.chat(name)).status_code for name in ("tiny", "own")] == [503, 503]
            assert (await first).status_code == 504
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()

    run(scenario())


def test_bounds_are_settings() -> None:
    assert GatewayConfig.from_environment({}).bounds == Bounds()
    settings = {"CORRAL_MAX_PENDING": "7", "CORRAL_MAX_WAIT": "2m"}
    assert GatewayConfig.from_environment(settings).bounds == Bounds(7, 120.0)
