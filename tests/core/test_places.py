"""Who gets room on a node, and who makes it. Memory is in units; a node has it all for pods."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.node import Taint
from corral_core.snapshot import ModelState, Plan
from tests.support.planning import NOW, activity, cold, leaving, loading, needs, node, plan_on, sized, warm

BUSY = activity(in_flight=1)
N = node("n", 10)


def replicas(made: Plan, keys: str) -> list[int]:
    return [made.decisions[key].replicas for key in keys]


def test_a_model_starts_where_it_fits() -> None:
    made = plan_on([node("small", 4), N], sized(cold("a", waiting_since=1), 8))
    assert (made.decisions["a"].replicas, made.decisions["a"].place) == (1, "n")


def test_the_idle_model_leaves_and_the_waiting_one_comes_when_it_is_gone() -> None:
    waiting, idle = sized(cold("a", waiting_since=1), 8), sized(warm("b"), 8, on="n")
    made = plan_on([N], waiting, idle)
    assert replicas(made, "ab") == [0, 0]
    assert made.decisions["b"].yields_to == "a"
    assert made.decisions["a"].waiting_for_capacity
    assert plan_on([N], waiting, sized(leaving("b"), 8, on="n")).decisions["a"].replicas == 0
    assert plan_on([N], waiting, sized(cold("b"), 8)).decisions["a"].replicas == 1


def test_a_busy_model_is_let_finish() -> None:
    made = plan_on([N], sized(cold("a", waiting_since=1), 8), sized(warm("b", BUSY), 8, on="n"))
    assert (made.decisions["b"].replicas, made.decisions["b"].draining, made.decisions["b"].yields_to) == (1, True, "a")
    assert made.decisions["a"].waiting_for_capacity


def test_any_resource_may_be_what_is_short() -> None:
    gpus = node("n", 10, gpu=2)
    made = plan_on([gpus], sized(cold("a", waiting_since=1), 1, gpu=1), sized(warm("b"), 1, on="n", gpu=2))
    assert replicas(made, "ab") == [0, 0]
    made = plan_on([gpus], sized(cold("a", waiting_since=1), 1, gpu=1), sized(warm("b"), 1, on="n", gpu=1))
    assert replicas(made, "ab") == [1, 1]


def test_two_that_wait_do_not_count_the_same_room() -> None:
    made = plan_on([N], sized(cold("a", waiting_since=2), 6), sized(cold("b", waiting_since=1), 6))
    assert replicas(made, "ab") == [1, 0]


def test_a_model_that_was_told_to_start_and_has_no_node_yet_keeps_its_room() -> None:
    begun = replace(sized(cold("b", waiting_since=1), 6), desired=1)
    made = plan_on([N], sized(cold("a", waiting_since=2), 6), begun)
    assert replicas(made, "ab") == [0, 1]


def test_a_model_that_was_told_to_start_waits_again_when_somebody_else_took_the_room() -> None:
    begun = replace(sized(cold("a", waiting_since=1), 6), desired=1)
    made = plan_on([N], begun, others={"n": 5})
    assert (made.decisions["a"].replicas, made.decisions["a"].waiting_for_capacity) == (0, True)


def test_others_pods_count_and_are_no_victims() -> None:
    made = plan_on([N], sized(cold("a", waiting_since=1), 8), sized(warm("b"), 2, on="n"), others={"n": 5})
    assert replicas(made, "ab") == [0, 1]
    assert made.decisions["a"].reason == "requests wait: needs 8 B memory; the most that is free is 3 B memory on n"


def test_of_the_idle_ones_no_more_leave_than_are_needed() -> None:
    made = plan_on(
        [N],
        sized(cold("w", waiting_since=1), 5),
        sized(warm("a", activity(keep_alive=1)), 2, on="n"),
        sized(warm("b", activity(keep_alive=2)), 3, on="n"),
        sized(warm("c", activity(keep_alive=3)), 5, on="n"),
    )
    assert replicas(made, "abcw") == [1, 1, 0, 0], "the third alone is enough, though the others are first in order"


def test_two_leave_where_one_is_not_enough_the_first_in_order() -> None:
    made = plan_on(
        [N],
        sized(cold("w", waiting_since=1), 6),
        sized(warm("a", activity(keep_alive=1)), 3, on="n"),
        sized(warm("b", activity(keep_alive=2)), 3, on="n"),
        sized(warm("c", activity(keep_alive=3)), 3, on="n"),
    )
    assert replicas(made, "abcw") == [0, 0, 1, 0]


def test_room_is_made_on_one_node_not_a_bit_on_each() -> None:
    made = plan_on(
        [node("m", 6), node("n", 6)],
        sized(cold("w", waiting_since=1), 6),
        sized(warm("a", activity(keep_alive=1)), 3, on="m"),
        sized(warm("b", activity(keep_alive=2)), 3, on="n"),
        others={"m": 1},
    )
    assert replicas(made, "abw") == [1, 0, 0]
    assert made.decisions["w"].place == "n"


def test_nobody_leaves_when_it_would_not_help() -> None:
    made = plan_on([N], sized(cold("w", waiting_since=1), 8), sized(warm("a"), 3, on="n"), others={"n": 3})
    assert replicas(made, "aw") == [1, 0]


def test_a_place_too_few_is_made_by_the_first_in_order_though_there_is_room() -> None:
    made = plan_on([N], sized(cold("w", waiting_since=1), 1), sized(warm("a"), 1, on="n"), limit=1)
    assert replicas(made, "aw") == [0, 0]


@pytest.mark.parametrize("pinned", [warm("a", min_replicas=1), loading("a")])
def test_a_pinned_or_loading_model_makes_no_room(pinned: ModelState) -> None:
    made = plan_on([N], sized(cold("w", waiting_since=1), 8), sized(pinned, 8, on="n"))
    assert replicas(made, "aw") == [1, 0]
    assert not made.decisions["a"].draining


def test_one_that_cannot_be_placed_holds_up_nobody_who_fits_beside_it() -> None:
    big, small = sized(cold("big", waiting_since=9), 10), sized(cold("small", waiting_since=1), 2)
    made = plan_on([N, node("m", 5)], big, small, others={"n": 3})
    assert made.decisions["small"].replicas == 1
    assert made.decisions["big"].waiting_for_capacity


def test_age_wins_over_size_on_the_node_where_the_older_one_will_have_room() -> None:
    big, small = sized(cold("big", waiting_since=9), 10), sized(cold("small", waiting_since=1), 2)
    made = plan_on([N], big, small, sized(loading("x"), 3, on="n"))
    assert (made.decisions["big"].replicas, made.decisions["small"].replicas) == (0, 0)
    made = plan_on([N, node("m", 2)], big, small, sized(loading("x"), 3, on="n"))
    assert (made.decisions["small"].replicas, made.decisions["small"].place) == (1, "m")


def test_a_pinned_model_that_no_node_has_room_for_gets_it_from_an_idle_one() -> None:
    made = plan_on([N], sized(cold("a", min_replicas=1), 8), sized(warm("b"), 8, on="n"))
    assert replicas(made, "ab") == [1, 0]


def test_a_model_that_drains_stays_picked_though_a_smaller_set_turns_up() -> None:
    picked, other = sized(warm("a", BUSY, draining=True), 8, on="n"), sized(warm("b", BUSY), 10, on="m")
    made = plan_on([N, node("m", 10)], sized(cold("w", waiting_since=1), 8, place="n"), picked, other)
    assert (made.decisions["a"].draining, made.decisions["b"].draining) == (True, False)


def test_an_idle_one_among_the_picked_leaves_at_once_while_the_busy_one_drains() -> None:
    made = plan_on(
        [N], sized(cold("w", waiting_since=1), 9), sized(warm("a", BUSY), 5, on="n"), sized(warm("b"), 5, on="n")
    )
    assert (made.decisions["a"].replicas, made.decisions["a"].draining) == (1, True)
    assert made.decisions["b"].replicas == 0


def test_a_need_that_no_node_can_ever_meet_fails_at_once_with_the_numbers() -> None:
    decision = plan_on([N, node("m", 12)], sized(cold("a", waiting_since=1), 20)).decisions["a"]
    assert decision.replicas == 0
    assert decision.failure == "needs 20 B memory; the most that any node has is 12 B memory on m"
    assert not decision.waiting_for_capacity


def test_a_model_that_nobody_asks_for_fails_as_well_and_a_larger_node_cures_it() -> None:
    model = sized(cold("a"), 20)
    assert plan_on([N], model).decisions["a"].failure
    assert plan_on([N, node("m", 20)], model).decisions["a"].failure is None


def test_a_full_cordoned_or_unready_node_is_no_reason_to_fail() -> None:
    model = sized(cold("a", waiting_since=1), 8)
    for there in (replace(N, cordoned=True), replace(N, ready=False), N):
        made = plan_on([there], model, others={"n": 9})
        assert made.decisions["a"].failure is None
        assert made.decisions["a"].waiting_for_capacity


def test_a_taint_of_the_cluster_passes_and_one_of_a_person_does_not() -> None:
    pressed = Taint("node.kubernetes.io/memory-pressure", "", "NoSchedule")
    model = sized(cold("a", waiting_since=1), 8)
    assert plan_on([node("n", 10, taints=(pressed,))], model).decisions["a"].waiting_for_capacity
    failure = plan_on([node("n", 10, taints=(Taint("team", "red", "NoSchedule"),))], model).decisions["a"].failure
    assert failure == "no node is fit for it; 1 node is tainted"


def test_a_suspended_model_is_suspended_whatever_it_needs() -> None:
    assert plan_on([N], sized(cold("a", suspend=True), 20)).decisions["a"].failure is None


def test_a_model_that_runs_is_not_called_hopeless_when_its_node_shrinks() -> None:
    assert plan_on([node("n", 4)], sized(warm("a", BUSY), 8, on="n")).decisions["a"].failure is None


def test_without_nodes_only_the_number_of_models_counts() -> None:
    assert plan_on([], sized(cold("a", waiting_since=1), 10**15)).decisions["a"].replicas == 1


def test_what_a_model_needs_that_is_not_known_is_not_counted() -> None:
    assert plan_on([N], cold("a", waiting_since=NOW)).decisions["a"].replicas == 1


def test_equal_needs_are_equal() -> None:
    assert needs(3, gpu=1) == needs(3, gpu=1)
