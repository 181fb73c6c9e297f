"""The planner's loop with a real supervisor and fake runners; the gateway is played by the test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.snapshot import Policy
from tests.local.parts import FAKE, RUNNER, ask, model, run
from tests.local.town import town
from tests.operator import samples
from tests.support.waiting import auntil

pytestmark = pytest.mark.process


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


def test_the_idle_model_makes_room_in_memory_for_the_one_that_waits_though_places_are_free() -> None:
    async def test() -> None:
        async with town(capacity=lambda _: 800 << 20) as made:
            made.serve(model("a"), model("b"), facts=samples.FACTS)
            for name in "aba":
                await made.serve_one(name)
            assert [event["model"] for event in made.log.events("started")] == ["a", "b", "a"]

    run(test())


def test_a_runner_is_started_for_one_request_at_once_where_there_is_no_memory_for_four(tmp_path: Path) -> None:
    async def test() -> None:
        noting = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['OLLAMA_NUM_PARALLEL']); "
        going_on = "os.execv(sys.executable, [sys.executable, sys.argv[2]])"
        command = (sys.executable, "-c", noting + going_on, str(tmp_path / "told"), FAKE[1])
        async with town(config=replace(RUNNER, command=command), capacity=lambda _: 400 << 20) as made:
            made.serve(model("a"), facts=samples.FACTS)
            await made.serve_one("a")
            assert (tmp_path / "told").read_text() == "1"

    run(test())


def test_models_stay_where_memory_is_for_all() -> None:
    async def test() -> None:
        async with town(capacity=lambda _: 1300 << 20) as made:
            made.serve(model("a"), model("b"), facts=samples.FACTS)
            for name in "aba":
                await made.serve_one(name)
            assert [event["model"] for event in made.log.events("started")] == ["a", "b"]

    run(test())


def test_a_model_starts_when_other_processes_have_given_memory_back() -> None:
    async def test() -> None:
        free, asked = [800 << 20], [0]

        def capacity(_: Collection[int]) -> int:
            asked[0] += 1
            return free[0]

        async with town(capacity=capacity) as made:
            made.serve(model("a", load_s=60), model("b"), facts=samples.FACTS)
            made.wait_for("a", ago=5)
            await auntil(lambda: made.log.events("started"))
            made.wait_for("b")
            before = asked[0]
            await auntil(lambda: asked[0] > before + 1, what="a second look while b waits")
            assert not made.supervisor.replicas("default/b")
            free[0] = 1300 << 20
            await made.ready("b")

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
