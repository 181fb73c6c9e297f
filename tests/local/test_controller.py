"""Planner loop with a real supervisor and fake runners; the test takes the place of the gateway."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.planning.snapshot import Policy
from tests.local.local_stack import local_stack
from tests.local.parts import FAKE, RUNNER, ask, model
from tests.operator import samples
from tests.support.waiting import auntil

pytestmark = pytest.mark.process


async def test_a_request_starts_a_runner_and_keep_alive_ends_it_repeatedly() -> None:
    async with local_stack() as made:
        made.serve(model("a", keep_alive_s=0.3))
        for _ in range(2):
            await made.serve_one("a")
            await made.at_zero("a")
        assert [event["status"] for event in made.log.events("exited")] == [0, 0]


async def test_two_models_alternate_when_one_may_be_loaded() -> None:
    async with local_stack(Policy(max_loaded=1)) as made:
        made.serve(model("a"), model("b"))
        for name in "abab":
            await made.serve_one(name)
        assert [event["model"] for event in made.log.events("started")] == ["a", "b", "a", "b"]


async def test_a_busy_model_drains_for_a_pending_one_and_loads_again_after_it(tmp_path: Path) -> None:
    async with local_stack(Policy(max_loaded=1)) as made:
        made.serve(model("a", slots=4), model("b"))
        made.report_pending("a")
        busy = asyncio.create_task(ask(await made.ready("a"), f"hold:{tmp_path / 'go'}"))
        made.report_no_demand("a")
        await auntil(lambda: made.in_flight("a"))
        made.report_pending("b")
        await auntil(lambda: made.entry("a").endpoints == (), what="no new work for the one that drains")
        made.report_pending("a")
        assert not busy.done()
        assert made.in_flight("a") == 1
        (tmp_path / "go").touch()
        assert (await busy)["status"] == 200
        assert (await ask(await made.ready("b"), "hi"))["status"] == 200
        made.report_no_demand("b")
        await made.ready("a")


async def test_a_model_that_stays_busy_is_ended_after_the_eviction_timeout(tmp_path: Path) -> None:
    async with local_stack(Policy(max_loaded=1, eviction_timeout=0.3)) as made:
        made.serve(model("a", slots=4), model("b"))
        made.report_pending("a")
        busy = asyncio.create_task(ask(await made.ready("a"), f"hold:{tmp_path / 'never'}"))
        made.report_no_demand("a")
        await auntil(lambda: made.in_flight("a"))
        made.report_pending("b")
        await auntil(lambda: made.entry("a").interrupted, what="the gateway to end the requests")
        assert (await ask(await made.ready("b"), "hi"))["status"] == 200
        assert not made.entry("a").interrupted
        assert isinstance((await asyncio.gather(busy, return_exceptions=True))[0], (ValueError, OSError))


async def test_an_idle_model_is_evicted_for_memory_below_the_model_limit() -> None:
    async with local_stack(capacity=lambda _: 800 << 20) as made:
        made.serve(model("a"), model("b"), metadata=samples.METADATA)
        for name in "aba":
            await made.serve_one(name)
        assert [event["model"] for event in made.log.events("started")] == ["a", "b", "a"]


async def test_a_runner_gets_one_slot_when_memory_allows_no_four(tmp_path: Path) -> None:
    noting = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['OLLAMA_NUM_PARALLEL']); "
    going_on = "os.execv(sys.executable, [sys.executable, sys.argv[2]])"
    command = (sys.executable, "-c", noting + going_on, str(tmp_path / "told"), FAKE[1])
    async with local_stack(config=replace(RUNNER, command=command), capacity=lambda _: 500 << 20) as made:
        made.serve(model("a"), metadata=samples.METADATA)
        await made.serve_one("a")
        assert (tmp_path / "told").read_text() == "1"


async def test_models_stay_loaded_when_memory_suffices() -> None:
    async with local_stack(capacity=lambda _: 1500 << 20) as made:
        made.serve(model("a"), model("b"), metadata=samples.METADATA)
        for name in "aba":
            await made.serve_one(name)
        assert [event["model"] for event in made.log.events("started")] == ["a", "b"]


async def test_a_model_starts_after_other_processes_free_memory() -> None:
    free, asked = [800 << 20], [0]

    def capacity(_: Collection[int]) -> int:
        asked[0] += 1
        return free[0]

    async with local_stack(capacity=capacity) as made:
        made.serve(model("a", load_s=60), model("b"), metadata=samples.METADATA)
        made.report_pending("a", seconds_ago=5)
        await auntil(lambda: made.log.events("started"))
        made.report_pending("b")
        before = asked[0]
        await auntil(lambda: asked[0] > before + 1, what="a second look while b waits")
        assert not made.supervisor.replicas("default/b")
        free[0] = 1500 << 20
        await made.ready("b")


async def test_suspending_a_model_ends_its_runner_and_refuses_requests() -> None:
    async with local_stack() as made:
        made.serve(model("a"))
        await made.serve_one("a")
        made.serve(model("a", spec={"suspend": True}))
        await made.at_zero("a")
        assert "suspended" in str(made.entry("a").unavailable_reason)


async def test_min_replicas_keeps_a_runner_without_requests() -> None:
    async with local_stack() as made:
        made.serve(model("a", keep_alive_s=0, spec={"minReplicas": 1}))
        await made.ready("a")


async def test_a_removed_model_is_unloaded_and_frees_capacity() -> None:
    async with local_stack(Policy(max_loaded=1)) as made:
        made.serve(model("a", keep_alive_s=-1), model("b"))
        await made.serve_one("a")
        made.serve(model("b"))
        await made.serve_one("b")
        assert made.supervisor.replicas("default/a") == ()


async def test_a_model_that_cannot_load_fails_and_frees_capacity() -> None:
    async with local_stack(Policy(max_loaded=1), replace(RUNNER, max_backoff=60)) as made:
        made.serve(model("a", fail="cursed"), model("b"))
        made.report_pending("a", seconds_ago=5)
        made.report_pending("b")
        await auntil(lambda: made.entry("a").unavailable_reason)
        assert str(made.entry("a").unavailable_reason).endswith("cursed")
        made.report_no_demand("a")
        await made.ready("b")


async def test_a_changed_model_gets_a_new_runner() -> None:
    async with local_stack() as made:
        made.serve(model("a", slots=1))
        await made.serve_one("a")
        made.serve(model("a", slots=2))
        await auntil(lambda: made.entry("a").endpoints and made.entry("a").endpoints[0].slots == 2)
        await auntil(lambda: len(made.supervisor.replicas("default/a")) == 1)
