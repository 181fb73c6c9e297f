"""Local mode with fake runner processes, without Model files and, by default, without a gateway."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import Model
from corral_core.planning.snapshot import Policy
from corral_server.gateway.directory.directory import Endpoint, ModelEntry
from corral_server.local.config import RunnerProcessConfig
from corral_server.local.controller import LocalController, unlimited
from corral_server.local.directory import LocalDirectory
from corral_server.local.runners.supervisor import Supervisor
from tests.local.parts import RUNNER, RecordedLog, ask, listed
from tests.support.waiting import auntil

DEFAULT_POLICY = Policy()

Capacity = Callable[[Collection[int]], int | None]


class LocalStack:
    """Supervisor, directory and controller of local mode."""

    def __init__(self, policy: Policy, config: RunnerProcessConfig, capacity: Capacity) -> None:
        self.log = RecordedLog()
        runner = replace(config, environment=dict(os.environ))
        self.supervisor = Supervisor(runner, self.log, lambda key: self.directory.changed(key))
        self.directory = LocalDirectory(self.supervisor, self.log, lambda: self.controller.request_plan())
        self.controller = LocalController(self.directory, self.supervisor, policy, self.log, capacity=capacity)

    def serve(self, *models: Model, metadata: ModelMetadata | None = None) -> None:
        """Serve these Models, whose weights have these metadata."""
        self.directory.replace([listed(each, metadata=metadata) for each in models])

    def entry(self, name: str) -> ModelEntry:
        entry = self.directory.get(f"default/{name}")
        assert entry is not None
        return entry

    def report_pending(self, name: str, *, seconds_ago: float = 0.0) -> None:
        """Report one pending request as the gateway does."""
        self.directory.report_demand(f"default/{name}", 1, time.time() - seconds_ago)

    def report_no_demand(self, name: str) -> None:
        self.directory.report_demand(f"default/{name}", 0, None)

    async def ready(self, name: str) -> Endpoint:
        await auntil(lambda: self.entry(name).endpoints, what=f"a runner of {name}")
        return self.entry(name).endpoints[0]

    async def serve_one(self, name: str, *, seconds_ago: float = 0.0) -> None:
        """Send a request that is pending until a runner is ready."""
        self.report_pending(name, seconds_ago=seconds_ago)
        endpoint = await self.ready(name)
        self.report_no_demand(name)
        assert (await ask(endpoint, "hi"))["status"] == 200

    async def at_zero(self, name: str) -> None:
        await auntil(lambda: not self.supervisor.replicas(f"default/{name}"), what=f"{name} at zero")

    def in_flight(self, name: str) -> int:
        statuses = [replica.status for replica in self.supervisor.replicas(f"default/{name}")]
        return sum(status.in_flight for status in statuses if status)


@asynccontextmanager
async def local_stack(
    policy: Policy = DEFAULT_POLICY, config: RunnerProcessConfig = RUNNER, capacity: Capacity = unlimited
) -> AsyncIterator[LocalStack]:
    made = LocalStack(policy, config, capacity)
    async with made.supervisor:
        planning = asyncio.create_task(made.controller.run())
        try:
            yield made
        finally:
            planning.cancel()
            await asyncio.gather(planning, return_exceptions=True)
