"""This machine as a node: placement, eviction, and no wait for memory that can never be free."""

from __future__ import annotations

import dataclasses

from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Decision, ModelState, Policy, Snapshot
from corral_server.local.local_node import NAME, with_local_node
from tests.support.planning import NOW, cold, loading, runner_status, warm

HUGE = 10**6


def decided(capacity: int, *models: ModelState, **sizes: int) -> dict[str, Decision]:
    placed, machine = with_local_node(models, sizes, capacity)
    return dict(plan(Snapshot(placed, Policy(), (machine,)), NOW).decisions)


def test_unknown_weights_request_no_memory() -> None:
    assert decided(1, cold("a", waiting_since=1))["a"].replicas == 1


def test_a_model_starts_if_it_fits_else_the_idle_one_is_evicted() -> None:
    models = warm("a"), cold("b", waiting_since=1)
    assert [each.replicas for each in decided(10, *models, a=6, b=4).values()] == [1, 1]
    full = decided(9, *models, a=6, b=4)
    assert (full["a"].replicas, full["a"].evicted_for, full["b"].replicas) == (0, "b", 0)


def test_a_busy_model_finishes_its_requests_before_eviction() -> None:
    made = decided(9, warm("a", runner_status(in_flight=1)), cold("b", waiting_since=1), a=6, b=4)
    assert (made["a"].replicas, made["a"].draining) == (1, True)


def test_a_model_larger_than_the_machine_starts_alone() -> None:
    assert decided(10, cold("a", waiting_since=1), a=HUGE)["a"].replicas == 1
    beside = decided(10, warm("b"), cold("a", waiting_since=1), a=HUGE, b=1)
    assert (beside["b"].evicted_for, beside["a"].replicas, beside["a"].failure) == ("a", 0, None)
    assert decided(10, loading("b"), cold("a", waiting_since=1), a=HUGE, b=1)["a"].waiting_for_capacity


def test_two_models_that_do_not_fit_together_do_not_start_together() -> None:
    made = decided(10, cold("a", waiting_since=2), cold("b", waiting_since=1), a=6, b=6)
    assert [each.replicas for each in made.values()] == [1, 0]


def test_a_pinned_model_does_not_block_others_forever() -> None:
    made = decided(10, warm("a", min_replicas=1), cold("b", waiting_since=1), a=8, b=5)
    assert [each.replicas for each in made.values()] == [1, 1]


def test_bytes_on_gpus_do_not_count_as_main_memory() -> None:
    on_gpu = dataclasses.replace(runner_status(), vram_bytes=5)
    placed, machine = with_local_node((warm("a", on_gpu),), {"a": 8}, 10)
    assert dict(machine.requested) == {"memory": 3}
    assert placed[0].replicas[0].node == NAME
