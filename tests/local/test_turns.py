"""Gateway, planner and supervisor together, with fake runners, under traffic that never stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from corral_core.snapshot import Policy
from tests.local.parts import RUNNER, model, run
from tests.local.town import Town, town
from tests.support.gateway import Running, running_gateway
from tests.support.waiting import auntil

pytestmark = [pytest.mark.process, pytest.mark.slow]


@dataclass
class Steady:
    """Clients that ask one model again and again until the block ends, and the status of each answer."""

    statuses: list[int]

    async def go_on(self, answers: int = 10) -> None:
        """Returns when this many more answers have come."""
        wanted = len(self.statuses) + answers
        await auntil(lambda: len(self.statuses) >= wanted)


@asynccontextmanager
async def steady(gateway: Running, name: str, *, clients: int) -> AsyncIterator[Steady]:
    traffic, ending = Steady([]), asyncio.Event()

    async def client() -> None:
        while not ending.is_set():
            traffic.statuses.append(await ask(gateway, name))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
        try:
            yield traffic
        finally:
            ending.set()


async def ask(gateway: Running, name: str, prompt: str = "wait:0.02") -> int:
    answer = await gateway.http.post("/api/generate", json={"model": name, "prompt": prompt})
    return answer.status_code


async def newly_ready(made: Town, runners: int) -> None:
    await auntil(lambda: len(made.log.events("ready")) >= runners, what=f"{runners} runners that became ready")


def starts(made: Town) -> list[object]:
    return [event["model"] for event in made.log.events("started")]


def test_steady_traffic_does_not_keep_another_model_waiting_in_the_only_place() -> None:
    async def test() -> None:
        async with town(Policy(max_loaded=1)) as made, running_gateway(made.directory) as gateway:
            made.serve(model("a", slots=2), model("b"))
            async with steady(gateway, "a", clients=5) as traffic:
                await auntil(lambda: traffic.statuses)
                for turn in range(1, 4):
                    assert await ask(gateway, "b") == 200
                    await traffic.go_on()
                    assert starts(made).count("b") == turn
            assert set(traffic.statuses) == {200}
            assert starts(made) == ["a", "b"] * 3 + ["a"]

    run(test())


def test_three_models_under_steady_traffic_share_two_places() -> None:
    async def test() -> None:
        async with town(Policy(max_loaded=2)) as made, running_gateway(made.directory) as gateway:
            made.serve(*(model(name, slots=2) for name in "abc"))
            async with (
                steady(gateway, "a", clients=3) as first,
                steady(gateway, "b", clients=3) as second,
                steady(gateway, "c", clients=3) as third,
            ):
                await auntil(lambda: min(len(each.statuses) for each in (first, second, third)) > 15, 60)
            assert {*first.statuses, *second.statuses, *third.statuses} == {200}

    run(test())


def test_no_request_is_lost_while_the_model_is_edited_under_traffic() -> None:
    async def test() -> None:
        async with town() as made, running_gateway(made.directory) as gateway:
            made.serve(model("a", slots=2, edition=0))
            async with steady(gateway, "a", clients=5) as traffic:
                for edition in range(1, 4):
                    await traffic.go_on()
                    made.serve(model("a", slots=2, edition=edition))
                    await newly_ready(made, edition + 1)
            assert set(traffic.statuses) == {200}

    run(test())


def test_requests_beside_the_one_that_crashes_its_runner_are_served_by_the_next() -> None:
    async def test() -> None:
        async with town(config=RUNNER) as made, running_gateway(made.directory) as gateway:
            made.serve(model("a", slots=1))
            assert await ask(gateway, "a") == 200
            crashing = asyncio.create_task(ask(gateway, "a", "crash"))
            others = [asyncio.create_task(ask(gateway, "a")) for _ in range(3)]
            assert await crashing == 500
            assert [await other for other in others] == [200, 200, 200]

    run(test())


def test_keep_alive_zero_under_traffic_loses_nothing() -> None:
    async def test() -> None:
        async with town() as made, running_gateway(made.directory) as gateway:
            made.serve(model("a", slots=2, keep_alive_s=0))
            async with steady(gateway, "a", clients=2) as traffic:
                await auntil(lambda: len(traffic.statuses) > 20, 60)
            assert set(traffic.statuses) == {200}
            await made.at_zero("a")

    run(test())
