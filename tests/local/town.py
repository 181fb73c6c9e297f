"""Local mode without its files and, unless a test adds one, without its gateway: real processes, fake runners."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

from corral_core.facts import ModelFacts
from corral_core.model import Model
from corral_core.snapshot import Policy
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.local.config import RunnerConfig
from corral_server.local.controller import Controller, unknown
from corral_server.local.directory import LocalDirectory
from corral_server.local.supervisor import Supervisor
from tests.local.parts import RUNNER, Heard, ask, listed
from tests.support.waiting import auntil

OLLAMAS = Policy()

Capacity = Callable[[Collection[int]], int | None]


class Town:
    """All of local mode but the gateway and the files."""

    def __init__(self, policy: Policy, config: RunnerConfig, capacity: Capacity) -> None:
        self.log = Heard()
        runner = replace(config, environment=dict(os.environ))
        self.supervisor = Supervisor(runner, self.log, lambda key: self.directory.changed(key))
        self.directory = LocalDirectory(self.supervisor, self.log, lambda: self.controller.wake())
        self.controller = Controller(self.directory, self.supervisor, policy, self.log, capacity=capacity)

    def serve(self, *models: Model, facts: ModelFacts | None = None) -> None:
        """All of the Models have weights with these facts."""
        self.directory.replace([listed(each, facts=facts) for each in models])

    def entry(self, name: str) -> Entry:
        entry = self.directory.get(f"default/{name}")
        assert entry is not None
        return entry

    def wait_for(self, name: str, *, ago: float = 0.0) -> None:
        """A request waits, as the gateway says it."""
        self.directory.demand(f"default/{name}", 1, time.time() - ago)

    def content(self, name: str) -> None:
        self.directory.demand(f"default/{name}", 0, None)

    async def ready(self, name: str) -> Endpoint:
        await auntil(lambda: self.entry(name).endpoints, what=f"a runner of {name}")
        return self.entry(name).endpoints[0]

    async def serve_one(self, name: str, *, ago: float = 0.0) -> None:
        """A request that waits until a runner is ready, and is answered."""
        self.wait_for(name, ago=ago)
        endpoint = await self.ready(name)
        self.content(name)
        assert (await ask(endpoint, "hi"))["status"] == 200

    async def at_zero(self, name: str) -> None:
        await auntil(lambda: not self.supervisor.replicas(f"default/{name}"), what=f"{name} at zero")

    def in_flight(self, name: str) -> int:
        said = [replica.activity for replica in self.supervisor.replicas(f"default/{name}")]
        return sum(activity.in_flight for activity in said if activity)


@asynccontextmanager
async def town(
    policy: Policy = OLLAMAS, config: RunnerConfig = RUNNER, capacity: Capacity = unknown
) -> AsyncIterator[Town]:
    made = Town(policy, config, capacity)
    async with made.supervisor:
        planning = asyncio.create_task(made.controller.run())
        try:
            yield made
        finally:
            planning.cancel()
            await asyncio.gather(planning, return_exceptions=True)
