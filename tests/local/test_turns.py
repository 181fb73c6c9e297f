"""Gateway, planner and supervisor with fake runners under continuous traffic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from corral_core.planning.snapshot import Policy
from tests.local.local_stack import LocalStack, local_stack
from tests.local.parts import RUNNER, model
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.waiting import auntil

pytestmark = [pytest.mark.process, pytest.mark.slow]


@dataclass
class Steady:
    """Clients that request one model until the block ends, and the status of each response."""

    statuses: list[int]

    async def go_on(self, answers: int = 10) -> None:
        """Returns when this many more answers have come."""
        wanted = len(self.statuses) + answers
        await auntil(lambda: len(self.statuses) >= wanted)


@asynccontextmanager
async def steady(gateway: RunningGateway, name: str, *, clients: int) -> AsyncIterator[Steady]:
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


async def ask(gateway: RunningGateway, name: str, prompt: str = "wait:0.02") -> int:
    answer = await gateway.http.post("/api/generate", json={"model": name, "prompt": prompt})
    return answer.status_code


async def newly_ready(made: LocalStack, runners: int) -> None:
    await auntil(lambda: len(made.log.events("ready")) >= runners, what=f"{runners} runners that became ready")


def starts(made: LocalStack) -> list[object]:
    return [event["model"] for event in made.log.events("started")]


async def test_steady_traffic_does_not_starve_another_model() -> None:
    async with local_stack(Policy(max_loaded=1)) as made, running_gateway(made.directory) as gateway:
        made.serve(model("a", slots=2), model("b"))
        async with steady(gateway, "a", clients=5) as traffic:
            await auntil(lambda: traffic.statuses)
            for turn in range(1, 4):
                assert await ask(gateway, "b") == 200
                await traffic.go_on()
                assert starts(made).count("b") == turn
        assert set(traffic.statuses) == {200}
        assert starts(made) == ["a", "b"] * 3 + ["a"]


async def test_three_models_share_capacity_for_two_under_steady_traffic() -> None:
    async with local_stack(Policy(max_loaded=2)) as made, running_gateway(made.directory) as gateway:
        made.serve(*(model(name, slots=2) for name in "abc"))
        async with (
            steady(gateway, "a", clients=3) as first,
            steady(gateway, "b", clients=3) as second,
            steady(gateway, "c", clients=3) as third,
        ):
            await auntil(lambda: min(len(each.statuses) for each in (first, second, third)) > 15, 60)
        assert {*first.statuses, *second.statuses, *third.statuses} == {200}


async def test_no_request_is_lost_while_the_model_is_edited_under_traffic() -> None:
    async with local_stack() as made, running_gateway(made.directory) as gateway:
        made.serve(model("a", slots=2, edition=0))
        async with steady(gateway, "a", clients=5) as traffic:
            for edition in range(1, 4):
                await traffic.go_on()
                made.serve(model("a", slots=2, edition=edition))
                await newly_ready(made, edition + 1)
        assert set(traffic.statuses) == {200}


async def test_requests_beside_a_crashing_one_are_served_by_the_next_runner() -> None:
    async with local_stack(config=RUNNER) as made, running_gateway(made.directory) as gateway:
        made.serve(model("a", slots=1))
        assert await ask(gateway, "a") == 200
        crashing = asyncio.create_task(ask(gateway, "a", "crash"))
        others = [asyncio.create_task(ask(gateway, "a")) for _ in range(3)]
        assert await crashing == 500
        assert [await other for other in others] == [200, 200, 200]


async def test_keep_alive_zero_under_traffic_loses_nothing() -> None:
    async with local_stack() as made, running_gateway(made.directory) as gateway:
        made.serve(model("a", slots=2, keep_alive_s=0))
        async with steady(gateway, "a", clients=2) as traffic:
            await auntil(lambda: len(traffic.statuses) > 20, 60)
        assert set(traffic.statuses) == {200}
        await made.at_zero("a")
