"""The planner's loop with a real supervisor and fake runners; the gateway is played by the test."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.model import Model
from corral_core.snapshot import Policy
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.local.config import RunnerConfig
from corral_server.local.controller import Controller
from corral_server.local.directory import LocalDirectory
from corral_server.local.supervisor import Supervisor
from tests.local.parts import RUNNER, Heard, ask, listed, model, run
from tests.support.waiting import auntil

pytestmark = pytest.mark.process


class Town:
    """All of local mode but the gateway and the files."""

    def __init__(self, policy: Policy, config: RunnerConfig) -> None:
        self.log = Heard()
        runner = replace(config, environment=dict(os.environ))
        self.supervisor = Supervisor(runner, self.log, lambda key: self.directory.changed(key))
        self.directory = LocalDirectory(self.supervisor, self.log, lambda: self.controller.wake())
        self.controller = Controller(self.directory, self.supervisor, policy, self.log)

    def serve(self, *models: Model) -> None:
        self.directory.replace([listed(each) for each in models])

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
async def town(policy: Policy = Policy(), config: RunnerConfig = RUNNER) -> AsyncIterator[Town]:  # noqa: B008  # frozen
    made = Town(policy, config)
    async with made.supervisor:
        planning = asyncio.create_task(made.controller.run())
        try:
            yield made
        finally:
            planning.cancel()
            await asyncio.gather(planning, return_exceptions=True)


def test_a_request_starts_a_runner_and_keep_alive_ends_it_and_so_again() -> None:
    async def test() -> None:
        async with town() as made:
            made.serve(model("a", keep_alive_s=0.3))
            for _ in range(2):
                await made.serve_one("a")
                await made.at_zero("a")
            assert [event["status"] for event in made.log.events("exited")] == [0, 0]

    run(test())


def test_in_one_place_two_models_take_turns() -> None:
    async def test() -> None:
        async with town(Policy(max_loaded=1)) as made:
            made.serve(model("a"), model("b"))
            for name in "abab":
                await made.serve_one(name)
            assert [event["model"] for event in made.log.events("started")] == ["a", "b", "a", "b"]

    run(test())


def test_a_busy_model_drains_for_the_one_that_waits_and_is_served_again_after_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with town(Policy(max_loaded=1)) as made:
            made.serve(model("a", slots=4), model("b"))
            made.wait_for("a")
            busy = asyncio.create_task(ask(await made.ready("a"), f"hold:{tmp_path / 'go'}"))
            made.content("a")
            await auntil(lambda: made.in_flight("a"))
            made.wait_for("b")
            await auntil(lambda: made.entry("a").endpoints == (), what="no new work for the one that drains")
            made.wait_for("a")
            assert not busy.done()
            assert made.in_flight("a") == 1
            (tmp_path / "go").touch()
            assert (await busy)["status"] == 200
            assert (await ask(await made.ready("b"), "hi"))["status"] == 200
            made.content("b")
            await made.ready("a")

    run(test())


def test_a_suspended_model_ends_and_refuses() -> None:
    async def test() -> None:
        async with town() as made:
            made.serve(model("a"))
            await made.serve_one("a")
            made.serve(model("a", spec={"suspend": True}))
            await made.at_zero("a")
            assert "suspended" in str(made.entry("a").failure)

    run(test())


def test_a_model_with_min_replicas_runs_without_requests() -> None:
    async def test() -> None:
        async with town() as made:
            made.serve(model("a", keep_alive_s=0, spec={"minReplicas": 1}))
            await made.ready("a")

    run(test())


def test_a_removed_model_is_unloaded_and_frees_its_place() -> None:
    async def test() -> None:
        async with town(Policy(max_loaded=1)) as made:
            made.serve(model("a", keep_alive_s=-1), model("b"))
            await made.serve_one("a")
            made.serve(model("b"))
            await made.serve_one("b")
            assert made.supervisor.replicas("default/a") == ()

    run(test())


def test_a_model_that_cannot_load_fails_and_gives_its_place_back() -> None:
    async def test() -> None:
        async with town(Policy(max_loaded=1), replace(RUNNER, longest_backoff=60)) as made:
            made.serve(model("a", fail="cursed"), model("b"))
            made.wait_for("a", ago=5)
            made.wait_for("b")
            await auntil(lambda: made.entry("a").failure)
            assert str(made.entry("a").failure).endswith("cursed")
            made.content("a")
            await made.ready("b")

    run(test())


def test_a_changed_model_is_served_by_a_new_runner() -> None:
    async def test() -> None:
        async with town() as made:
            made.serve(model("a", slots=1))
            await made.serve_one("a")
            made.serve(model("a", slots=2))
            await auntil(lambda: made.entry("a").endpoints and made.entry("a").endpoints[0].slots == 2)
            await auntil(lambda: len(made.supervisor.replicas("default/a")) == 1)

    run(test())
