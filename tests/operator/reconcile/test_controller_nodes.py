"""Controller on a cluster with one node that has memory for one Model."""

from __future__ import annotations

from corral_operator.observe.cluster_state import Kind
from corral_operator.reconcile.planning.current_plan import REASON_INTERVAL
from tests.operator import samples
from tests.operator.reconcile.world import World
from tests.operator.samples import other_pod
from tests.support.waiting import auntil


def set_node(world: World, memory: str = "3Gi") -> None:
    world.version += 1
    world.feed.replace(Kind.NODES, [samples.node("node-1", memory=memory, version=world.version)], str(world.version))
    world.feed.replace(Kind.OTHER_PODS, [], "0")


def add_other_pod(world: World, name: str, memory: int) -> None:
    world.version += 1
    trimmed = {"node": "node-1", "requests": {"memory": memory}}
    world.feed.apply(Kind.OTHER_PODS, {**other_pod(name, version=world.version), **trimmed})


def delete_other_pod(world: World, name: str) -> None:
    world.version += 1
    world.feed.delete(Kind.OTHER_PODS, other_pod(name, version=world.version))


def capacity_reason(world: World) -> str:
    decision = world.decision()
    return decision.reason if decision is not None and decision.waiting_for_capacity else ""


async def test_an_idle_model_is_evicted_from_the_node_for_a_pending_one(world: World) -> None:
    world.memory = {"first": "2Gi", "second": "2Gi"}
    set_node(world)
    world.model("first", waiting=1)
    await auntil(lambda: world.replicas("first") == 1)
    world.pod("first")
    world.model("first")
    world.report(samples.runner_status(expires_at=world.clock.now + 300), "first")
    await world.pass_time(10)
    world.model("second", waiting=1)
    await auntil(lambda: world.replicas("first") == 0)
    assert world.replicas("second") in (0, None)
    world.delete_pod("first")
    await auntil(lambda: world.replicas("second") == 1)


async def test_a_model_waits_for_the_memory_of_other_pods(world: World) -> None:
    world.memory = {"tiny": "2Gi"}
    set_node(world)
    add_other_pod(world, "a", 2 << 30)
    world.model(waiting=1)
    await auntil(lambda: capacity_reason(world))
    await auntil(lambda: world.replicas() == 0)
    delete_other_pod(world, "a")
    await auntil(lambda: world.replicas() == 1)


async def test_the_reason_of_a_waiting_model_changes_every_few_seconds_at_most(world: World) -> None:
    world.memory = {"tiny": "3Gi"}
    set_node(world)
    add_other_pod(world, "a", 1 << 30)
    world.model(waiting=1)
    await auntil(lambda: "free is 2 GiB" in capacity_reason(world))
    add_other_pod(world, "b", 1 << 30)
    world.views.clear()
    world.model(waiting=1)
    await auntil(lambda: "free is 2 GiB" in capacity_reason(world))
    await world.pass_time(REASON_INTERVAL + 1)
    await auntil(lambda: "free is 1 GiB" in capacity_reason(world))


async def test_a_new_model_that_no_node_can_run_never_gets_a_replica(world: World) -> None:
    world.memory = {"tiny": "9Gi"}
    set_node(world)
    world.model(waiting=1)
    await auntil(lambda: (decision := world.decision()) and decision.failure)
    assert world.applied == [("tiny", 0)]


async def test_changed_requirements_of_an_edited_model_are_planned_with_at_once(world: World) -> None:
    world.memory = {"tiny": "9Gi"}
    set_node(world)
    world.model()
    await auntil(lambda: (decision := world.decision()) and decision.failure)
    world.memory = {"tiny": "1Gi"}
    world.model()
    await auntil(lambda: (decision := world.decision()) and decision.failure is None)


async def test_a_larger_node_clears_the_failure_of_a_model_that_fitted_no_node(world: World) -> None:
    world.memory = {"tiny": "9Gi"}
    set_node(world)
    world.model()
    await auntil(lambda: (decision := world.decision()) and decision.failure)
    set_node(world, "12Gi")
    await auntil(lambda: (decision := world.decision()) and decision.failure is None)


async def test_no_failure_is_reported_if_a_smaller_load_config_fits(world: World) -> None:
    world.memory = {"tiny": "9Gi"}
    set_node(world, "12Gi")
    world.model()
    await auntil(lambda: world.replicas() == 0 and "tiny" in world.views)
    world.memory = {"tiny": "1Gi"}
    set_node(world, "3Gi")
    world.model(waiting=1)
    await auntil(lambda: world.replicas() == 1)
    assert not world.reported_failure


async def test_other_pods_cause_no_plan_while_no_model_waits_for_capacity(world: World) -> None:
    set_node(world)
    world.model()
    await auntil(lambda: world.replicas() == 0 and "tiny" in world.views)
    world.views.clear()
    for number in range(50):
        add_other_pod(world, f"pod-{number}", 1)
    world.model("other")
    await auntil(lambda: "other" in world.views)
    assert "tiny" not in world.views
