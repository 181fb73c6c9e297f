from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.activity import FOREVER
from corral_core.planner import plan
from corral_core.snapshot import Cause, Decision, ModelState, Policy, Replica, Snapshot
from tests.support.planning import (
    NOW,
    activity,
    cold,
    decide,
    leaving,
    loading,
    plan_for,
    replica,
    warm,
)

BUSY = activity(in_flight=1)
EXPIRED = activity(expires_at=NOW - 1)


def test_a_cold_model_without_requests_stays_at_zero() -> None:
    decision = decide(cold("a"))
    assert (decision.replicas, decision.reason) == (0, "idle: nobody asks for it")


def test_a_cold_model_starts_when_a_request_waits() -> None:
    decision = decide(cold("a", waiting_since=0))
    assert decision.replicas == 1
    assert not decision.waiting_for_capacity


def test_an_idle_model_is_kept_until_its_keep_alive_runs_out() -> None:
    made = plan_for(warm("a", activity(expires_at=NOW + 7)))
    assert made.decisions["a"].replicas == 1
    assert made.next == NOW + 7


def test_an_idle_model_is_unloaded_at_the_moment_its_keep_alive_runs_out() -> None:
    assert decide(warm("a", activity(expires_at=NOW))).replicas == 0


def test_a_busy_model_outlives_its_keep_alive() -> None:
    busy = replace(EXPIRED, in_flight=1)
    assert decide(warm("a", busy)).replicas == 1


def test_a_model_with_requests_that_wait_in_the_runner_outlives_its_keep_alive() -> None:
    assert decide(warm("a", replace(EXPIRED, waiting=1))).replicas == 1


def test_a_model_that_requests_wait_for_outlives_its_keep_alive() -> None:
    assert decide(warm("a", EXPIRED, waiting_since=0)).replicas == 1


def test_a_negative_keep_alive_never_runs_out() -> None:
    made = plan_for(warm("a", activity(keep_alive=FOREVER, expires_at=None)))
    assert made.decisions["a"].replicas == 1
    assert made.next is None


def test_of_two_replicas_the_one_that_stays_longer_counts() -> None:
    forever, expired = replica(activity(keep_alive=FOREVER, expires_at=None)), replica(EXPIRED)
    rolling = replace(warm("a"), replicas=(expired, forever))
    assert decide(rolling).replicas == 1
    assert decide(replace(rolling, replicas=(expired, expired))).replicas == 0


def test_a_runner_that_cannot_be_asked_counts_as_busy() -> None:
    model = replace(warm("a"), replicas=(replica(None),))
    assert decide(model, now=NOW + 10_000).replicas == 1
    assert decide(cold("b", waiting_since=0), model, limit=1).replicas == 0


def test_min_replicas_hold_a_model_up_without_requests() -> None:
    assert decide(cold("a", min_replicas=1)).replicas == 1
    assert decide(warm("a", EXPIRED, min_replicas=1)).replicas == 1


def test_suspend_takes_a_busy_model_to_zero() -> None:
    decision = decide(warm("a", BUSY, suspend=True, min_replicas=1))
    assert (decision.replicas, decision.reason) == (0, "suspended: spec.suspend is true")


def test_suspend_outweighs_the_scale_subresource() -> None:
    assert decide(cold("a", suspend=True, replicas=1)).replicas == 0


@pytest.mark.parametrize("replicas", [0, 1])
def test_spec_replicas_fix_the_number(replicas: int) -> None:
    assert decide(warm("a", EXPIRED, waiting_since=5, replicas=replicas)).replicas == replicas
    assert decide(cold("a", waiting_since=5, replicas=replicas)).replicas == replicas


def test_a_refused_model_is_at_zero_and_says_why() -> None:
    decision = decide(replace(warm("a", min_replicas=1), refused="its name belongs to b"))
    assert (decision.replicas, decision.reason) == (0, "its name belongs to b")


def test_a_load_that_nobody_waits_for_any_more_is_let_finish() -> None:
    made = plan_for(loading("a"))
    assert made.decisions["a"].replicas == 1
    assert made.next == NOW - 60 + Policy().load_timeout


def test_a_load_that_never_ends_is_given_up_when_nobody_waits() -> None:
    late = NOW + Policy().load_timeout
    assert decide(loading("a"), now=late).replicas == 0
    assert decide(loading("a", waiting_since=0), now=late).replicas == 1


def test_patience_without_end_asks_for_no_planning_at_its_end() -> None:
    policy = Policy(load_timeout=FOREVER)
    assert plan(Snapshot((loading("a"),), policy), NOW).next is None


def test_a_start_that_has_not_begun_is_called_off_when_nobody_waits() -> None:
    assert decide(replace(cold("a"), desired=1)).replicas == 0


def test_more_replicas_than_max_replicas_go() -> None:
    assert decide(replace(warm("a"), desired=2)).replicas == 1


def test_without_a_place_the_idle_model_makes_room_first_and_the_waiting_one_starts_after() -> None:
    waiting, idle = cold("a", waiting_since=1), warm("b")
    made = plan_for(waiting, idle, limit=1)
    assert made.decisions["b"].replicas == 0
    assert made.decisions["b"].yields_to == "a"
    assert made.decisions["a"].replicas == 0
    assert made.decisions["a"].waiting_for_capacity
    assert decide(waiting, leaving("b"), limit=1).replicas == 0
    assert decide(waiting, cold("b"), limit=1).replicas == 1


def test_nobody_makes_room_while_there_is_a_place() -> None:
    made = plan_for(cold("a", waiting_since=1), warm("b"), warm("c"), limit=3)
    assert [made.decisions[key].replicas for key in "abc"] == [1, 1, 1]


def test_the_shortest_keep_alive_leaves_first_not_the_least_recently_used() -> None:
    short = warm("z", activity(keep_alive=10, last_end=NOW - 1))
    long = warm("a", activity(keep_alive=600, last_end=NOW - 500))
    forever = warm("b", activity(keep_alive=FOREVER, expires_at=None))
    made = plan_for(cold("w", waiting_since=0), short, long, forever, limit=3)
    assert [made.decisions[key].replicas for key in "zab"] == [0, 1, 1]


def test_a_model_kept_for_ever_makes_room_when_it_is_the_last_one_idle() -> None:
    forever = warm("a", activity(keep_alive=FOREVER, expires_at=None))
    assert decide(forever, cold("w", waiting_since=0), limit=1).replicas == 0


def test_equal_keep_alives_leave_by_name() -> None:
    made = plan_for(cold("w", waiting_since=0), warm("b"), warm("a"), limit=2)
    assert [made.decisions[key].replicas for key in "ab"] == [0, 1]


def test_an_idle_model_leaves_before_a_busy_one_with_a_shorter_keep_alive() -> None:
    made = plan_for(cold("w", waiting_since=0), warm("a", replace(BUSY, keep_alive=1)), warm("b"), limit=2)
    assert [made.decisions[key].replicas for key in "ab"] == [1, 0]
    assert not made.decisions["a"].draining


@pytest.mark.parametrize("pinned", [warm("a", min_replicas=1), warm("a", replicas=1)])
def test_a_pinned_model_makes_no_room(pinned: ModelState) -> None:
    made = plan_for(cold("w", waiting_since=0), pinned, limit=1)
    assert made.decisions["a"].replicas == 1
    assert made.decisions["w"].waiting_for_capacity
    assert "pinned" in made.decisions["w"].reason


def test_a_loading_model_makes_no_room() -> None:
    made = plan_for(cold("w", waiting_since=9), loading("a"), limit=1)
    assert made.decisions["a"].replicas == 1
    assert not made.decisions["a"].draining


def test_a_model_that_is_waited_for_makes_no_room() -> None:
    made = plan_for(cold("w", waiting_since=5), warm("a", waiting_since=9), limit=1)
    assert made.decisions["a"].replicas == 1
    assert not made.decisions["a"].draining


def test_without_an_idle_model_the_first_in_order_drains() -> None:
    first, second = warm("b", replace(BUSY, keep_alive=10)), warm("a", BUSY)
    made = plan_for(cold("w", waiting_since=0), first, second, limit=2)
    assert (made.decisions["b"].replicas, made.decisions["b"].draining, made.decisions["b"].yields_to) == (1, True, "w")
    assert not made.decisions["a"].draining
    assert made.decisions["w"].waiting_for_capacity


def test_a_model_that_drains_stays_picked_though_another_gets_a_shorter_keep_alive() -> None:
    picked, other = warm("b", BUSY, draining=True), warm("a", replace(BUSY, keep_alive=0.5))
    made = plan_for(cold("w", waiting_since=0), picked, other, limit=2)
    assert made.decisions["b"].draining
    assert not made.decisions["a"].draining


def test_a_model_that_drained_leaves_though_younger_requests_wait_for_it() -> None:
    drained = warm("a", waiting_since=3, draining=True)
    decision = decide(drained, cold("w", waiting_since=5), limit=1)
    assert (decision.replicas, decision.yields_to) == (0, "w")


def test_a_model_that_drained_serves_on_when_the_requests_it_made_room_for_left() -> None:
    decision = decide(warm("a", BUSY, waiting_since=3, draining=True), cold("w"), limit=1)
    assert (decision.replicas, decision.draining) == (1, False)


def test_an_idle_model_whose_request_is_about_to_be_dispatched_drains_before_it_leaves() -> None:
    decision = decide(warm("a", waiting_since=4), cold("w", waiting_since=5), limit=1)
    assert (decision.replicas, decision.draining) == (1, True)


def test_a_model_with_a_queue_drains_once_its_queue_is_younger_than_the_request_that_waits() -> None:
    waiting = cold("w", waiting_since=5)
    assert not decide(warm("a", BUSY, waiting_since=6), waiting, limit=1).draining
    assert decide(warm("a", BUSY, waiting_since=4), waiting, limit=1).draining


def test_a_model_just_loaded_is_not_unloaded_before_its_request_arrives() -> None:
    unused = activity(last_end=None)
    fresh = replace(warm("a", unused), replicas=(Replica("r", True, False, NOW - 9, unused, NOW - 1),))
    waiting = cold("w", waiting_since=5)
    made = plan_for(fresh, waiting, limit=1)
    assert made.decisions["a"].replicas == 1
    assert made.next == NOW - 1 + Policy().min_residency
    assert decide(fresh, waiting, limit=1, now=made.next).replicas == 0


def test_a_keep_alive_of_zero_does_not_run_out_before_the_request_arrives() -> None:
    unused = activity(last_end=None, keep_alive=0, expires_at=NOW - 1)
    fresh = replace(warm("a", unused), replicas=(Replica("r", True, False, NOW - 9, unused, NOW - 1),))
    end = NOW - 1 + Policy().min_residency
    made = plan_for(fresh)
    assert (made.decisions["a"].replicas, made.next) == (1, end)
    assert decide(fresh, now=end).replicas == 0


def test_the_oldest_request_gets_the_place() -> None:
    made = plan_for(cold("a", waiting_since=1), cold("b", waiting_since=2), limit=1)
    assert [made.decisions[key].replicas for key in "ab"] == [0, 1]


def test_each_model_that_waits_gets_a_victim_of_its_own() -> None:
    made = plan_for(cold("a", waiting_since=2), cold("b", waiting_since=1), warm("c"), warm("d", BUSY), limit=2)
    assert (made.decisions["c"].replicas, made.decisions["c"].yields_to) == (0, "a")
    assert (made.decisions["d"].draining, made.decisions["d"].yields_to) == (True, "b")


def test_a_place_that_is_being_freed_is_not_freed_twice() -> None:
    made = plan_for(cold("a", waiting_since=2), leaving("b"), warm("c"), limit=2)
    assert made.decisions["a"].replicas == 0
    assert made.decisions["c"].replicas == 1


def test_a_model_in_its_last_moments_does_not_take_its_place_back_from_an_older_request() -> None:
    made = plan_for(leaving("a", waiting_since=1), cold("w", waiting_since=2), limit=1)
    assert [made.decisions[key].replicas for key in "aw"] == [0, 0]
    made = plan_for(cold("a", waiting_since=1), cold("w", waiting_since=2), limit=1)
    assert [made.decisions[key].replicas for key in "aw"] == [0, 1]


def test_pinned_models_start_beyond_the_limit_and_idle_ones_leave_for_them() -> None:
    made = plan_for(cold("a", min_replicas=1), warm("b", BUSY), warm("c"), limit=2)
    assert [made.decisions[key].replicas for key in "abc"] == [1, 1, 0]


@pytest.mark.parametrize(
    ("cause", "decision"),
    [
        (Cause.EXPIRED, decide(warm("a", EXPIRED))),
        (Cause.ROOM, decide(warm("a"), cold("w", waiting_since=1), limit=1)),
        (Cause.LIMIT, decide(warm("a"), cold("b", min_replicas=1), warm("c", BUSY), limit=2)),
        (Cause.UNUSED, decide(replace(cold("a"), desired=1))),
        (Cause.UNUSED, decide(loading("a"), now=NOW + Policy().load_timeout)),
        (Cause.FAILED, decide(replace(warm("a"), refused="another Model has its name"))),
        (None, decide(warm("a"))),
    ],
)
def test_a_model_that_is_unloaded_has_a_cause_that_can_be_counted(cause: Cause | None, decision: Decision) -> None:
    assert decision.cause is cause
    assert decision.replicas == (cause is None)


def test_the_limit_is_three_for_each_gpu_and_three_without() -> None:
    models = tuple(cold(f"m{i}", waiting_since=9 - i) for i in range(9))
    for gpus, limit in ((0, 3), (1, 3), (2, 6)):
        made = plan(Snapshot(models, Policy(gpus=gpus)), NOW)
        assert sum(decision.replicas for decision in made.decisions.values()) == limit
