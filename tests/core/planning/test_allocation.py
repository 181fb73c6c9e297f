"""Allocation of node capacity and eviction for it. Memory is in bytes; all of a node's memory is allocatable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.planning.node import Taint
from corral_core.planning.snapshot import ModelState, Plan
from tests.support.planning import (
    NOW,
    cold,
    leaving,
    loading,
    node,
    plan_on,
    pod_requirements,
    runner_status,
    sized,
    warm,
)

BUSY = runner_status(in_flight=1)
N = node("n", 10)


def replicas(made: Plan, keys: str) -> list[int]:
    return [made.decisions[key].replicas for key in keys]


def test_model_starts_on_a_node_where_it_fits() -> None:
    made = plan_on([node("small", 4), N], sized(cold("a", waiting_since=1), 8))
    assert (made.decisions["a"].replicas, made.decisions["a"].placement) == (1, "n")


def test_idle_model_is_evicted_and_the_pending_one_starts_when_it_is_gone() -> None:
    waiting, idle = sized(cold("a", waiting_since=1), 8), sized(warm("b"), 8, on="n")
    made = plan_on([N], waiting, idle)
    assert replicas(made, "ab") == [0, 0]
    assert made.decisions["b"].evicted_for == "a"
    assert made.decisions["a"].waiting_for_capacity
    assert plan_on([N], waiting, sized(leaving("b"), 8, on="n")).decisions["a"].replicas == 0
    assert plan_on([N], waiting, sized(cold("b"), 8)).decisions["a"].replicas == 1


def test_busy_model_drains() -> None:
    made = plan_on([N], sized(cold("a", waiting_since=1), 8), sized(warm("b", BUSY), 8, on="n"))
    assert (made.decisions["b"].replicas, made.decisions["b"].draining, made.decisions["b"].evicted_for) == (
        1,
        True,
        "a",
    )
    assert made.decisions["a"].waiting_for_capacity


def test_any_resource_can_be_short() -> None:
    gpus = node("n", 10, gpu=2)
    made = plan_on([gpus], sized(cold("a", waiting_since=1), 1, gpu=1), sized(warm("b"), 1, on="n", gpu=2))
    assert replicas(made, "ab") == [0, 0]
    made = plan_on([gpus], sized(cold("a", waiting_since=1), 1, gpu=1), sized(warm("b"), 1, on="n", gpu=1))
    assert replicas(made, "ab") == [1, 1]


def test_capacity_is_not_counted_twice() -> None:
    made = plan_on([N], sized(cold("a", waiting_since=2), 6), sized(cold("b", waiting_since=1), 6))
    assert replicas(made, "ab") == [1, 0]


def test_starting_model_without_a_node_keeps_its_capacity() -> None:
    begun = replace(sized(cold("b", waiting_since=1), 6), desired=1)
    made = plan_on([N], sized(cold("a", waiting_since=2), 6), begun)
    assert replicas(made, "ab") == [0, 1]


def test_starting_model_becomes_pending_when_another_pod_took_the_capacity() -> None:
    begun = replace(sized(cold("a", waiting_since=1), 6), desired=1)
    made = plan_on([N], begun, others={"n": 5})
    assert (made.decisions["a"].replicas, made.decisions["a"].waiting_for_capacity) == (0, True)


def test_other_pods_use_capacity_and_are_never_victims() -> None:
    made = plan_on([N], sized(cold("a", waiting_since=1), 8), sized(warm("b"), 2, on="n"), others={"n": 5})
    assert replicas(made, "ab") == [0, 1]
    reason = "requests are pending: needs 8 B memory; the most that is free is 3 B memory on n"
    assert made.decisions["a"].reason == reason


def test_no_more_victims_than_needed() -> None:
    made = plan_on(
        [N],
        sized(cold("w", waiting_since=1), 5),
        sized(warm("a", runner_status(keep_alive=1)), 2, on="n"),
        sized(warm("b", runner_status(keep_alive=2)), 3, on="n"),
        sized(warm("c", runner_status(keep_alive=3)), 5, on="n"),
    )
    assert replicas(made, "abcw") == [1, 1, 0, 0], "the third alone is enough"


def test_two_victims_in_eviction_order_when_one_is_not_enough() -> None:
    made = plan_on(
        [N],
        sized(cold("w", waiting_since=1), 6),
        sized(warm("a", runner_status(keep_alive=1)), 3, on="n"),
        sized(warm("b", runner_status(keep_alive=2)), 3, on="n"),
        sized(warm("c", runner_status(keep_alive=3)), 3, on="n"),
    )
    assert replicas(made, "abcw") == [0, 0, 1, 0]


def test_capacity_is_freed_on_one_node() -> None:
    made = plan_on(
        [node("m", 6), node("n", 6)],
        sized(cold("w", waiting_since=1), 6),
        sized(warm("a", runner_status(keep_alive=1)), 3, on="m"),
        sized(warm("b", runner_status(keep_alive=2)), 3, on="n"),
        others={"m": 1},
    )
    assert replicas(made, "abw") == [1, 0, 0]
    assert made.decisions["w"].placement == "n"


def test_no_eviction_that_would_not_help() -> None:
    made = plan_on([N], sized(cold("w", waiting_since=1), 8), sized(warm("a"), 3, on="n"), others={"n": 3})
    assert replicas(made, "aw") == [1, 0]


def test_first_candidate_is_evicted_for_the_limit_when_nodes_have_capacity() -> None:
    made = plan_on([N], sized(cold("w", waiting_since=1), 1), sized(warm("a"), 1, on="n"), limit=1)
    assert replicas(made, "aw") == [0, 0]


@pytest.mark.parametrize("pinned", [warm("a", min_replicas=1), loading("a")])
def test_pinned_or_loading_model_is_not_evicted(pinned: ModelState) -> None:
    made = plan_on([N], sized(cold("w", waiting_since=1), 8), sized(pinned, 8, on="n"))
    assert replicas(made, "aw") == [1, 0]
    assert not made.decisions["a"].draining


def test_unplaceable_model_does_not_block_one_that_fits() -> None:
    big, small = sized(cold("big", waiting_since=9), 10), sized(cold("small", waiting_since=1), 2)
    made = plan_on([N, node("m", 5)], big, small, others={"n": 3})
    assert made.decisions["small"].replicas == 1
    assert made.decisions["big"].waiting_for_capacity


def test_age_wins_over_size_on_the_node_of_the_older_model() -> None:
    big, small = sized(cold("big", waiting_since=9), 10), sized(cold("small", waiting_since=1), 2)
    made = plan_on([N], big, small, sized(loading("x"), 3, on="n"))
    assert (made.decisions["big"].replicas, made.decisions["small"].replicas) == (0, 0)
    made = plan_on([N, node("m", 2)], big, small, sized(loading("x"), 3, on="n"))
    assert (made.decisions["small"].replicas, made.decisions["small"].placement) == (1, "m")


def test_idle_model_is_evicted_for_a_pinned_one() -> None:
    made = plan_on([N], sized(cold("a", min_replicas=1), 8), sized(warm("b"), 8, on="n"))
    assert replicas(made, "ab") == [1, 0]


def test_draining_model_stays_the_victim_when_a_smaller_set_appears() -> None:
    picked, other = sized(warm("a", BUSY, draining=True), 8, on="n"), sized(warm("b", BUSY), 10, on="m")
    made = plan_on([N, node("m", 10)], sized(cold("w", waiting_since=1), 8, place="n"), picked, other)
    assert (made.decisions["a"].draining, made.decisions["b"].draining) == (True, False)


def test_idle_victim_is_unloaded_at_once_while_the_busy_one_drains() -> None:
    made = plan_on(
        [N], sized(cold("w", waiting_since=1), 9), sized(warm("a", BUSY), 5, on="n"), sized(warm("b"), 5, on="n")
    )
    assert (made.decisions["a"].replicas, made.decisions["a"].draining) == (1, True)
    assert made.decisions["b"].replicas == 0


def test_infeasible_requirements_fail_at_once_with_the_amounts() -> None:
    decision = plan_on([N, node("m", 12)], sized(cold("a", waiting_since=1), 20)).decisions["a"]
    assert decision.replicas == 0
    assert decision.failure == "needs 20 B memory; the most that any node has is 12 B memory on m"
    assert not decision.waiting_for_capacity


def test_infeasible_model_without_requests_fails_until_a_larger_node_exists() -> None:
    model = sized(cold("a"), 20)
    assert plan_on([N], model).decisions["a"].failure
    assert plan_on([N, node("m", 20)], model).decisions["a"].failure is None


def test_full_cordoned_or_unready_node_does_not_fail_the_model() -> None:
    model = sized(cold("a", waiting_since=1), 8)
    for there in (replace(N, cordoned=True), replace(N, ready=False), N):
        made = plan_on([there], model, others={"n": 9})
        assert made.decisions["a"].failure is None
        assert made.decisions["a"].waiting_for_capacity


def test_temporary_taint_does_not_fail_the_model_and_a_permanent_one_does() -> None:
    pressed = Taint("node.kubernetes.io/memory-pressure", "", "NoSchedule")
    model = sized(cold("a", waiting_since=1), 8)
    assert plan_on([node("n", 10, taints=(pressed,))], model).decisions["a"].waiting_for_capacity
    failure = plan_on([node("n", 10, taints=(Taint("team", "red", "NoSchedule"),))], model).decisions["a"].failure
    assert failure == "no suitable node; 1 node is tainted"


def test_suspended_model_does_not_fail() -> None:
    assert plan_on([N], sized(cold("a", suspend=True), 20)).decisions["a"].failure is None


def test_running_model_does_not_fail_when_its_node_shrinks() -> None:
    assert plan_on([node("n", 4)], sized(warm("a", BUSY), 8, on="n")).decisions["a"].failure is None


def test_only_the_limit_applies_without_nodes() -> None:
    assert plan_on([], sized(cold("a", waiting_since=1), 10**15)).decisions["a"].replicas == 1


def test_unknown_requirements_fit_everywhere() -> None:
    assert plan_on([N], cold("a", waiting_since=NOW)).decisions["a"].replicas == 1


def test_equal_requirements_compare_equal() -> None:
    assert pod_requirements(3, gpu=1) == pod_requirements(3, gpu=1)
