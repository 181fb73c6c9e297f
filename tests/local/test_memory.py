"""This machine as a node: who fits, who makes room, and that nobody waits for what can never be."""

from __future__ import annotations

import dataclasses

from corral_core.planner import plan
from corral_core.snapshot import Decision, ModelState, Policy, Snapshot
from corral_server.local.memory import NAME, on_this_machine
from tests.support.planning import NOW, activity, cold, loading, warm

HUGE = 10**6


def decided(capacity: int, *models: ModelState, **sizes: int) -> dict[str, Decision]:
    placed, machine = on_this_machine(models, sizes, capacity)
    return dict(plan(Snapshot(placed, Policy(), (machine,)), NOW).decisions)


def test_of_weights_that_are_not_known_nothing_is_counted() -> None:
    assert decided(1, cold("a", waiting_since=1))["a"].replicas == 1


def test_what_fits_beside_the_others_starts_and_else_the_idle_one_leaves() -> None:
    models = warm("a"), cold("b", waiting_since=1)
    assert [each.replicas for each in decided(10, *models, a=6, b=4).values()] == [1, 1]
    full = decided(9, *models, a=6, b=4)
    assert (full["a"].replicas, full["a"].yields_to, full["b"].replicas) == (0, "b", 0)


def test_a_busy_one_ends_its_requests_first() -> None:
    made = decided(9, warm("a", activity(in_flight=1)), cold("b", waiting_since=1), a=6, b=4)
    assert (made["a"].replicas, made["a"].draining) == (1, True)


def test_what_is_larger_than_the_machine_starts_alone() -> None:
    assert decided(10, cold("a", waiting_since=1), a=HUGE)["a"].replicas == 1
    beside = decided(10, warm("b"), cold("a", waiting_since=1), a=HUGE, b=1)
    assert (beside["b"].yields_to, beside["a"].replicas, beside["a"].failure) == ("a", 0, None)
    assert decided(10, loading("b"), cold("a", waiting_since=1), a=HUGE, b=1)["a"].waiting_for_capacity


def test_two_that_are_together_too_large_do_not_start_at_once() -> None:
    made = decided(10, cold("a", waiting_since=2), cold("b", waiting_since=1), a=6, b=6)
    assert [each.replicas for each in made.values()] == [1, 0]


def test_nobody_waits_for_a_model_that_is_pinned() -> None:
    made = decided(10, warm("a", min_replicas=1), cold("b", waiting_since=1), a=8, b=5)
    assert [each.replicas for each in made.values()] == [1, 1]


def test_what_lies_on_gpus_is_not_taken_of_the_machines_own_memory() -> None:
    on_gpu = dataclasses.replace(activity(), vram_bytes=5)
    placed, machine = on_this_machine((warm("a", on_gpu),), {"a": 8}, 10)
    assert dict(machine.taken) == {"memory": 3}
    assert placed[0].replicas[0].node == NAME
