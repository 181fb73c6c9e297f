"""Controller: from changes of the state to decisions, applied objects and reported status."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from corral_core.contracts.demand import ENTRY_TTL
from corral_core.planning.snapshot import Policy
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.reconcile import controller
from tests.operator import samples
from tests.operator.reconcile.world import World
from tests.operator.samples import NOW
from tests.support.exposition import sample_value
from tests.support.waiting import auntil

one_loaded_model = pytest.mark.parametrize("policy", [Policy(max_loaded=1)])


async def loaded(world: World, name: str = "tiny") -> None:
    """Start a runner of the Model by a request; afterwards no request is pending."""
    world.model(name, waiting=1)
    await auntil(lambda: world.replicas(name) == 1)
    world.pod(name)
    world.model(name)


async def test_a_model_gets_its_deployment_with_zero_replicas_before_the_first_request(world: World) -> None:
    world.model()
    await auntil(lambda: world.replicas() == 0)


async def test_demand_starts_a_replica_and_the_end_of_keep_alive_stops_it(world: World) -> None:
    world.model(waiting=1)
    await auntil(lambda: world.replicas() == 1)
    world.pod()
    world.report(samples.runner_status(in_flight=1))
    world.model(waiting=0)
    await auntil(lambda: "tiny" in world.views and world.views["tiny"].item.demand == ())
    world.report(samples.runner_status(expires_at=world.clock.now + 300))
    await world.pass_time(299)
    await auntil(lambda: world.views["tiny"].usage.expires_at == NOW + 300)
    assert world.replicas() == 1
    await world.pass_time(2)
    await auntil(lambda: world.replicas() == 0)


async def test_the_failed_gpu_of_a_runner_is_reported(world: World) -> None:
    world.model(waiting=1)
    await auntil(lambda: world.replicas() == 1)
    world.pod()
    world.report(replace(samples.runner_status(), draining=True, device_failure="GPU 0 is lost"))
    await auntil(lambda: any(pod.failure for pod in world.views["tiny"].pods), what="the failure")
    failure = world.views["tiny"].pods[0].failure
    assert failure is not None
    assert failure.message.startswith("GPU 0 is lost")


async def test_an_unreachable_runner_is_not_unloaded(world: World) -> None:
    world.model(waiting=1)
    await auntil(lambda: world.replicas() == 1)
    world.pod()
    world.report(samples.runner_status(expires_at=world.clock.now + 1))
    world.model(waiting=0)
    world.report(None)
    await world.pass_time(10)
    world.model("other")
    await auntil(lambda: "other" in world.views)
    assert world.replicas() == 1


async def test_an_unload_request_takes_effect_at_once(world: World) -> None:
    await loaded(world)
    await world.pass_time(10)
    world.report(samples.runner_status(in_flight=1))
    world.report(samples.runner_status(expires_at=world.clock.now))
    await auntil(lambda: world.replicas() == 0, 0.4)


async def test_demand_that_is_not_renewed_expires_without_another_event(world: World) -> None:
    world.model(waiting=1)
    await auntil(lambda: world.replicas() == 1)
    await world.pass_time(ENTRY_TTL + 1)
    await auntil(lambda: world.replicas() == 0)


@one_loaded_model
async def test_an_idle_model_is_evicted_for_one_with_pending_requests(world: World) -> None:
    await loaded(world, "first")
    world.report(samples.runner_status(expires_at=world.clock.now + 300), "first")
    await world.pass_time(10)
    world.model("second", waiting=1)
    await auntil(lambda: world.replicas("first") == 0)
    assert world.replicas("second") == 0
    await auntil(lambda: (decision := world.decision("second")) and decision.waiting_for_capacity)
    world.delete_pod("first")
    await auntil(lambda: world.replicas("second") == 1)


@one_loaded_model
async def test_a_busy_victim_is_reported_as_draining_until_it_is_evicted(world: World) -> None:
    await loaded(world, "first")
    world.report(samples.runner_status(in_flight=1), "first")
    await world.pass_time(10)
    world.model("second", waiting=1)
    await auntil(lambda: (decision := world.decision("first")) and decision.draining)
    assert world.replicas("first") == 1
    world.report(samples.runner_status(expires_at=world.clock.now + 300), "first")
    await auntil(lambda: world.replicas("first") == 0)


@one_loaded_model
async def test_a_victim_that_stays_busy_is_ended_after_the_eviction_timeout(world: World) -> None:
    await loaded(world, "first")
    world.report(samples.runner_status(in_flight=1), "first")
    await world.pass_time(10)
    world.model("second", waiting=1)
    await auntil(lambda: (decision := world.decision("first")) and decision.draining)
    await world.pass_time(Policy().eviction_timeout - 1)
    world.model("second", waiting=1)
    await auntil(lambda: not world.queue.depth)
    assert (world.replicas("first"), world.interrupted) == (1, [])
    await world.pass_time(1)
    await auntil(lambda: world.replicas("first") == 0)
    await auntil(lambda: world.interrupted)
    assert set(world.interrupted) == {"lab/first"}
    world.delete_pod("first")
    await auntil(lambda: world.replicas("second") == 1)


async def test_a_failed_write_is_retried_and_counted(world: World) -> None:
    world.failures = 2
    world.model(waiting=1)
    await auntil(lambda: world.replicas() == 1)
    assert world.applied == [("tiny", 0), ("tiny", 1)]
    await auntil(lambda: not world.queue.depth)
    text = world.metrics.exposition()[0].decode()
    assert sample_value(text, "corral_operator_plan_duration_seconds_count") >= 1
    assert sample_value(text, "corral_operator_workqueue_adds_total") >= 3
    assert sample_value(text, "corral_operator_workqueue_retries_total") == 2
    assert sample_value(text, "corral_operator_workqueue_work_duration_seconds_count") >= 3
    assert sample_value(text, "corral_operator_workqueue_queue_duration_seconds_count") >= 3


async def test_nothing_is_written_while_the_replica_is_not_the_leader(world: World) -> None:
    world.leading = False
    world.model(waiting=1)
    await auntil(lambda: world.leading_checks)
    assert world.applied == []
    world.leading = True
    await auntil(lambda: world.replicas() == 1)


async def test_a_deleted_model_is_forgotten_and_nothing_is_applied(world: World) -> None:
    world.model(waiting=1)
    world.delete_model()
    await auntil(lambda: "lab/tiny" in world.forgotten)
    assert world.applied == []


async def test_a_model_whose_object_names_are_taken_is_rejected_until_they_are_free(world: World) -> None:
    world.not_owned = True
    world.model(waiting=1)
    await auntil(lambda: "tiny" in world.views and world.views["tiny"].rejection)
    world.not_owned = False
    world.model(waiting=1)
    await auntil(lambda: world.replicas() == 1 and world.views["tiny"].rejection is None)


async def test_a_rejected_object_is_reported_and_applied_again_without_a_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "FIRST_REJECTED_RETRY", 0.05)
    rejected = PodFailure("DeploymentRejected", "the API server rejected the Model's Deployment: no", "Failed")
    world.rejected = rejected
    world.model(waiting=1)
    await auntil(lambda: "tiny" in world.views and world.views["tiny"].rejected_object == rejected)
    assert world.replicas() is None
    world.rejected = None
    await auntil(lambda: world.replicas() == 1 and world.views["tiny"].rejected_object is None)


async def test_a_model_that_another_installation_serves_is_neither_planned_nor_written_until_that_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "LEFT_MODEL_CHECK", 0.05)
    world.other_installation = "a/corral-operator"
    world.model(waiting=1)
    await auntil(lambda: world.state.left_models == {"lab/tiny"})
    world.model(waiting=2)
    await asyncio.sleep(0)
    assert (world.applied, world.views) == ([], {})
    world.other_installation = None
    await auntil(lambda: world.replicas() == 1 and world.views)
    assert world.state.left_models == set()


async def test_an_invalid_model_is_reported_and_nothing_is_applied(world: World) -> None:
    world.model(source="nonsense")
    await auntil(lambda: "tiny" in world.views)
    assert world.decision() is None
    assert world.applied == []


async def test_a_busy_model_expires_as_if_its_requests_ended_now(world: World) -> None:
    world.model(waiting=1)
    await auntil(lambda: world.replicas() == 1)
    world.pod()
    world.report(samples.runner_status(in_flight=1))
    await auntil(lambda: world.views["tiny"].usage.expires_at == NOW + 300)


async def test_status_changes_by_ordinary_traffic_are_gathered(world: World) -> None:
    await loaded(world)
    world.report(samples.runner_status())
    await auntil(lambda: world.views["tiny"].item.demand == ())
    world.views.clear()
    for in_flight in (1, 0) * 50:
        expires_at = None if in_flight else world.clock.now + 300
        world.report(samples.runner_status(in_flight=in_flight, expires_at=expires_at))
    await asyncio.sleep(0)
    assert world.views == {}
    await auntil(lambda: world.views)
    assert world.views["tiny"].usage.expires_at == NOW + 300
