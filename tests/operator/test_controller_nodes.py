"""Observe, plan, act, with a node that has memory for one Model."""

from __future__ import annotations

from corral_core.node import parse_node
from corral_operator.controller import REASON_EVERY
from corral_operator.nodes import Held
from corral_operator.observe import DELETED
from tests.operator import samples
from tests.operator.test_controller import World, scenario
from tests.support.waiting import auntil


def node(world: World, memory: str = "3Gi") -> None:
    world.store.nodes.set_node("node-1", parse_node(samples.node("node-1", memory=memory)))
    world.store.nodes.known = True
    world.controller.surrounded(True)


async def warm(world: World, name: str) -> None:
    """The Model has served a request and is idle."""
    world.model(name, waiting=1)
    await auntil(lambda: world.replicas(name) == 1)
    world.pod(name)
    world.model(name)
    world.says(samples.activity(expires_at=world.now + 300), name)
    await world.time(10)


def test_the_idle_model_makes_room_on_the_node_and_the_waiting_one_starts_when_it_is_gone() -> None:
    async def run(world: World) -> None:
        world.memory = {"first": "2Gi", "second": "2Gi"}
        node(world)
        await warm(world, "first")
        world.model("second", waiting=1)
        await auntil(lambda: world.replicas("first") == 0)
        assert world.replicas("second") in (0, None)
        world.pod("first", kind=DELETED)
        await auntil(lambda: world.replicas("second") == 1)

    scenario(run)


def test_a_model_waits_for_other_peoples_pods_and_starts_when_they_are_gone() -> None:
    async def run(world: World) -> None:
        world.memory = {"tiny": "2Gi"}
        node(world)
        world.store.nodes.pod(None, Held("node-1", {"memory": 2 << 30}))
        world.model(waiting=1)
        await auntil(lambda: (made := world.views.get("tiny")) and made.decision and made.decision.waiting_for_capacity)
        await auntil(lambda: world.replicas() == 0)
        world.store.nodes.pod(Held("node-1", {"memory": 2 << 30}), None)
        world.controller.surrounded(False)
        await auntil(lambda: world.replicas() == 1)

    scenario(run)


def test_how_much_is_free_is_told_of_a_waiting_model_every_few_seconds_only() -> None:
    def reason(world: World) -> str:
        made = world.views["tiny"].decision if "tiny" in world.views else None
        return made.reason if made is not None and made.waiting_for_capacity else ""

    async def run(world: World) -> None:
        world.memory = {"tiny": "3Gi"}
        node(world)
        world.store.nodes.pod(None, Held("node-1", {"memory": 1 << 30}))
        world.model(waiting=1)
        await auntil(lambda: "free is 2 GiB" in reason(world))
        world.store.nodes.pod(None, Held("node-1", {"memory": 1 << 30}))
        world.views.clear()
        world.model(waiting=1)
        await auntil(lambda: "free is 2 GiB" in reason(world))
        await world.time(REASON_EVERY + 1)
        await auntil(lambda: "free is 1 GiB" in reason(world))

    scenario(run)


def test_what_an_edit_made_the_model_need_is_planned_with_at_once() -> None:
    async def run(world: World) -> None:
        world.memory = {"tiny": "9Gi"}
        node(world)
        world.model()
        await auntil(lambda: (made := world.views.get("tiny")) and made.decision and made.decision.failure)
        world.memory = {"tiny": "1Gi"}
        world.model()
        await auntil(lambda: (made := world.views["tiny"].decision) and made.failure is None)

    scenario(run)


def test_a_larger_node_cures_a_model_that_fitted_none() -> None:
    async def run(world: World) -> None:
        world.memory = {"tiny": "9Gi"}
        node(world)
        world.model()
        await auntil(lambda: (made := world.views.get("tiny")) and made.decision and made.decision.failure)
        node(world, "12Gi")
        await auntil(lambda: (made := world.views["tiny"].decision) and made.failure is None)

    scenario(run)


def test_nobody_is_told_that_a_model_fits_no_node_which_its_runner_is_made_smaller_for() -> None:
    async def run(world: World) -> None:
        world.memory = {"tiny": "9Gi"}
        node(world, "12Gi")
        world.model()
        await auntil(lambda: world.replicas() == 0 and "tiny" in world.views)
        world.memory = {"tiny": "1Gi"}
        world.store.nodes.set_node("node-1", parse_node(samples.node("node-1", memory="3Gi")))
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        assert not world.told_failed

    scenario(run)


def test_other_peoples_pods_cause_no_planning_while_nobody_waits() -> None:
    async def run(world: World) -> None:
        node(world)
        world.model()
        await auntil(lambda: world.replicas() == 0 and "tiny" in world.views)
        world.views.clear()
        for _ in range(50):
            world.store.nodes.pod(None, Held("node-1", {"memory": 1}))
            world.controller.surrounded(False)
        world.model("other")
        await auntil(lambda: "other" in world.views)
        assert "tiny" not in world.views

    scenario(run)
