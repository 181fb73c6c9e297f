"""Planner without nodes: keep_alive, the limit of loaded models, eviction order, draining."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.durations import FOREVER
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Decision, ModelState, Policy, Replica, ScaleDownCause, Snapshot
from tests.support.planning import (
    NOW,
    cold,
    decide,
    leaving,
    loading,
    plan_for,
    replica,
    runner_status,
    warm,
)

BUSY = runner_status(in_flight=1)
EXPIRED = runner_status(expires_at=NOW - 1)


def test_inactive_model_without_requests_stays_at_zero() -> None:
    decision = decide(cold("a"))
    assert (decision.replicas, decision.reason) == (0, "inactive: no pending requests")


def test_inactive_model_starts_when_a_request_is_pending() -> None:
    decision = decide(cold("a", waiting_since=0))
    assert decision.replicas == 1
    assert not decision.waiting_for_capacity


def test_idle_model_is_kept_until_its_keep_alive_expires() -> None:
    made = plan_for(warm("a", runner_status(expires_at=NOW + 7)))
    assert made.decisions["a"].replicas == 1
    assert made.replan_at == NOW + 7


def test_idle_model_is_unloaded_when_its_keep_alive_expires() -> None:
    assert decide(warm("a", runner_status(expires_at=NOW))).replicas == 0


def test_busy_model_outlives_its_keep_alive() -> None:
    busy = replace(EXPIRED, in_flight=1)
    assert decide(warm("a", busy)).replicas == 1


def test_model_with_requests_queued_in_the_runner_outlives_its_keep_alive() -> None:
    assert decide(warm("a", replace(EXPIRED, waiting=1))).replicas == 1


def test_model_with_pending_requests_outlives_its_keep_alive() -> None:
    assert decide(warm("a", EXPIRED, waiting_since=0)).replicas == 1


def test_negative_keep_alive_never_expires() -> None:
    made = plan_for(warm("a", runner_status(keep_alive=FOREVER, expires_at=None)))
    assert made.decisions["a"].replicas == 1
    assert made.replan_at is None


def test_latest_expiry_of_all_replicas_counts() -> None:
    forever, expired = replica(runner_status(keep_alive=FOREVER, expires_at=None)), replica(EXPIRED)
    rolling = replace(warm("a"), replicas=(expired, forever))
    assert decide(rolling).replicas == 1
    assert decide(replace(rolling, replicas=(expired, expired))).replicas == 0


def test_unreachable_runner_counts_as_busy() -> None:
    model = replace(warm("a"), replicas=(replica(None),))
    assert decide(model, now=NOW + 10_000).replicas == 1
    assert decide(cold("b", waiting_since=0), model, limit=1).replicas == 0


def test_min_replicas_keep_a_model_without_requests() -> None:
    assert decide(cold("a", min_replicas=1)).replicas == 1
    assert decide(warm("a", EXPIRED, min_replicas=1)).replicas == 1


def test_suspend_scales_a_busy_model_to_zero() -> None:
    decision = decide(warm("a", BUSY, suspend=True, min_replicas=1))
    assert (decision.replicas, decision.reason) == (0, "suspended: spec.suspend is true")


def test_suspend_overrides_the_scale_subresource() -> None:
    assert decide(cold("a", suspend=True, replicas=1)).replicas == 0


@pytest.mark.parametrize("replicas", [0, 1])
def test_spec_replicas_set_the_number(replicas: int) -> None:
    assert decide(warm("a", EXPIRED, waiting_since=5, replicas=replicas)).replicas == replicas
    assert decide(cold("a", waiting_since=5, replicas=replicas)).replicas == replicas


def test_rejected_model_is_at_zero_with_the_reason() -> None:
    decision = decide(replace(warm("a", min_replicas=1), rejection="its name belongs to b"))
    assert (decision.replicas, decision.reason) == (0, "its name belongs to b")


def test_a_model_that_is_not_pulled_does_not_start() -> None:
    waiting = replace(cold("a", waiting_since=5, min_replicas=1), not_pulled="the weights are not pulled yet")
    decision = decide(waiting)
    assert (decision.replicas, decision.reason) == (0, "the weights are not pulled yet")
    assert not decision.waiting_for_capacity


def test_a_runner_of_the_earlier_weights_serves_while_others_are_pulled() -> None:
    serving = replace(warm("a", BUSY), not_pulled="the weights are not pulled yet")
    assert decide(serving).replicas == 1
    expired = replace(warm("a", EXPIRED), not_pulled="the weights are not pulled yet")
    assert decide(expired).replicas == 0


def test_a_suspended_model_is_not_described_as_waiting_for_its_weights() -> None:
    suspended = replace(cold("a", suspend=True), not_pulled="the weights are not pulled yet")
    assert "suspended" in decide(suspended).reason


def test_load_without_pending_requests_may_finish() -> None:
    made = plan_for(loading("a"))
    assert made.decisions["a"].replicas == 1
    assert made.replan_at == NOW - 60 + Policy().load_timeout


def test_load_without_pending_requests_times_out() -> None:
    late = NOW + Policy().load_timeout
    assert decide(loading("a"), now=late).replicas == 0
    assert decide(loading("a", waiting_since=0), now=late).replicas == 1


def test_a_load_that_progresses_does_not_time_out() -> None:
    slow = loading("a")
    progressing = replace(slow, replicas=(replace(slow.replicas[0], progress_at=NOW + 1999),))
    made = plan_for(progressing, now=NOW + 2000)
    assert made.decisions["a"].replicas == 1
    assert made.replan_at == NOW + 1999 + Policy().load_timeout


def test_infinite_load_timeout_schedules_no_plan() -> None:
    policy = Policy(load_timeout=FOREVER)
    assert plan(Snapshot((loading("a"),), policy), NOW).replan_at is None


def test_start_without_pending_requests_is_cancelled() -> None:
    assert decide(replace(cold("a"), desired=1)).replicas == 0


def test_replicas_above_max_replicas_are_removed() -> None:
    assert decide(replace(warm("a"), desired=2)).replicas == 1


def test_idle_model_is_evicted_at_the_limit_and_the_pending_one_starts_after() -> None:
    waiting, idle = cold("a", waiting_since=1), warm("b")
    made = plan_for(waiting, idle, limit=1)
    assert made.decisions["b"].replicas == 0
    assert made.decisions["b"].evicted_for == "a"
    assert made.decisions["a"].replicas == 0
    assert made.decisions["a"].waiting_for_capacity
    assert decide(waiting, leaving("b"), limit=1).replicas == 0
    assert decide(waiting, cold("b"), limit=1).replicas == 1


def test_no_eviction_below_the_limit() -> None:
    made = plan_for(cold("a", waiting_since=1), warm("b"), warm("c"), limit=3)
    assert [made.decisions[key].replicas for key in "abc"] == [1, 1, 1]


def test_shortest_keep_alive_is_evicted_first() -> None:
    short = warm("z", runner_status(keep_alive=10, last_end=NOW - 1))
    long = warm("a", runner_status(keep_alive=600, last_end=NOW - 500))
    forever = warm("b", runner_status(keep_alive=FOREVER, expires_at=None))
    made = plan_for(cold("w", waiting_since=0), short, long, forever, limit=3)
    assert [made.decisions[key].replicas for key in "zab"] == [0, 1, 1]


def test_model_with_infinite_keep_alive_is_evicted_last() -> None:
    forever = warm("a", runner_status(keep_alive=FOREVER, expires_at=None))
    assert decide(forever, cold("w", waiting_since=0), limit=1).replicas == 0


def test_equal_keep_alives_are_evicted_by_name() -> None:
    made = plan_for(cold("w", waiting_since=0), warm("b"), warm("a"), limit=2)
    assert [made.decisions[key].replicas for key in "ab"] == [0, 1]


def test_idle_model_is_evicted_before_a_busy_one_with_a_shorter_keep_alive() -> None:
    made = plan_for(cold("w", waiting_since=0), warm("a", replace(BUSY, keep_alive=1)), warm("b"), limit=2)
    assert [made.decisions[key].replicas for key in "ab"] == [1, 0]
    assert not made.decisions["a"].draining


@pytest.mark.parametrize("pinned", [warm("a", min_replicas=1), warm("a", replicas=1)])
def test_pinned_model_is_not_evicted(pinned: ModelState) -> None:
    made = plan_for(cold("w", waiting_since=0), pinned, limit=1)
    assert made.decisions["a"].replicas == 1
    assert made.decisions["w"].waiting_for_capacity
    assert "pinned" in made.decisions["w"].reason


def test_loading_model_is_not_evicted() -> None:
    made = plan_for(cold("w", waiting_since=9), loading("a"), limit=1)
    assert made.decisions["a"].replicas == 1
    assert not made.decisions["a"].draining


def test_model_with_pending_requests_is_not_evicted() -> None:
    made = plan_for(cold("w", waiting_since=5), warm("a", waiting_since=9), limit=1)
    assert made.decisions["a"].replicas == 1
    assert not made.decisions["a"].draining


def test_first_candidate_drains_without_an_idle_model() -> None:
    first, second = warm("b", replace(BUSY, keep_alive=10)), warm("a", BUSY)
    made = plan_for(cold("w", waiting_since=0), first, second, limit=2)
    assert (made.decisions["b"].replicas, made.decisions["b"].draining, made.decisions["b"].evicted_for) == (
        1,
        True,
        "w",
    )
    assert not made.decisions["a"].draining
    assert made.decisions["w"].waiting_for_capacity


def test_draining_model_stays_the_victim_when_another_gets_a_shorter_keep_alive() -> None:
    picked, other = warm("b", BUSY, draining=True), warm("a", replace(BUSY, keep_alive=0.5))
    made = plan_for(cold("w", waiting_since=0), picked, other, limit=2)
    assert made.decisions["b"].draining
    assert not made.decisions["a"].draining


def test_drained_model_is_unloaded_despite_younger_pending_requests() -> None:
    drained = warm("a", waiting_since=3, draining=True)
    decision = decide(drained, cold("w", waiting_since=5), limit=1)
    assert (decision.replicas, decision.evicted_for) == (0, "w")


def test_draining_stops_when_the_other_requests_are_gone() -> None:
    decision = decide(warm("a", BUSY, waiting_since=3, draining=True), cold("w"), limit=1)
    assert (decision.replicas, decision.draining) == (1, False)


def test_idle_model_with_a_pending_request_drains_before_it_is_unloaded() -> None:
    decision = decide(warm("a", waiting_since=4), cold("w", waiting_since=5), limit=1)
    assert (decision.replicas, decision.draining) == (1, True)


def test_model_drains_only_for_requests_older_than_its_own() -> None:
    waiting = cold("w", waiting_since=5)
    assert not decide(warm("a", BUSY, waiting_since=6), waiting, limit=1).draining
    assert decide(warm("a", BUSY, waiting_since=4), waiting, limit=1).draining


def test_model_is_not_unloaded_within_its_minimum_residency() -> None:
    unused = runner_status(last_end=None)
    fresh = replace(warm("a", unused), replicas=(Replica("r", True, False, NOW - 9, unused, NOW - 1),))
    waiting = cold("w", waiting_since=5)
    made = plan_for(fresh, waiting, limit=1)
    assert made.decisions["a"].replicas == 1
    assert made.replan_at == NOW - 1 + Policy().min_residency
    assert decide(fresh, waiting, limit=1, now=made.replan_at).replicas == 0


def test_keep_alive_of_zero_does_not_expire_within_the_minimum_residency() -> None:
    unused = runner_status(last_end=None, keep_alive=0, expires_at=NOW - 1)
    fresh = replace(warm("a", unused), replicas=(Replica("r", True, False, NOW - 9, unused, NOW - 1),))
    end = NOW - 1 + Policy().min_residency
    made = plan_for(fresh)
    assert (made.decisions["a"].replicas, made.replan_at) == (1, end)
    assert decide(fresh, now=end).replicas == 0


def test_oldest_request_is_served_first() -> None:
    made = plan_for(cold("a", waiting_since=1), cold("b", waiting_since=2), limit=1)
    assert [made.decisions[key].replicas for key in "ab"] == [0, 1]


def test_each_pending_model_gets_its_own_victim() -> None:
    made = plan_for(cold("a", waiting_since=2), cold("b", waiting_since=1), warm("c"), warm("d", BUSY), limit=2)
    assert (made.decisions["c"].replicas, made.decisions["c"].evicted_for) == (0, "a")
    assert (made.decisions["d"].draining, made.decisions["d"].evicted_for) == (True, "b")


def test_no_second_victim_while_one_terminates() -> None:
    made = plan_for(cold("a", waiting_since=2), leaving("b"), warm("c"), limit=2)
    assert made.decisions["a"].replicas == 0
    assert made.decisions["c"].replicas == 1


def test_terminating_model_does_not_take_capacity_back_from_an_older_request() -> None:
    made = plan_for(leaving("a", waiting_since=1), cold("w", waiting_since=2), limit=1)
    assert [made.decisions[key].replicas for key in "aw"] == [0, 0]
    made = plan_for(cold("a", waiting_since=1), cold("w", waiting_since=2), limit=1)
    assert [made.decisions[key].replicas for key in "aw"] == [0, 1]


def test_pinned_models_exceed_the_limit_and_idle_ones_are_unloaded() -> None:
    made = plan_for(cold("a", min_replicas=1), warm("b", BUSY), warm("c"), limit=2)
    assert [made.decisions[key].replicas for key in "abc"] == [1, 1, 0]


@pytest.mark.parametrize(
    ("cause", "decision"),
    [
        (ScaleDownCause.EXPIRED, decide(warm("a", EXPIRED))),
        (ScaleDownCause.ROOM, decide(warm("a"), cold("w", waiting_since=1), limit=1)),
        (ScaleDownCause.LIMIT, decide(warm("a"), cold("b", min_replicas=1), warm("c", BUSY), limit=2)),
        (ScaleDownCause.UNUSED, decide(replace(cold("a"), desired=1))),
        (ScaleDownCause.UNUSED, decide(loading("a"), now=NOW + Policy().load_timeout)),
        (ScaleDownCause.FAILED, decide(replace(warm("a"), rejection="another Model has its name"))),
        (None, decide(warm("a"))),
    ],
)
def test_scale_down_has_a_cause(cause: ScaleDownCause | None, decision: Decision) -> None:
    assert decision.cause is cause
    assert decision.replicas == (cause is None)


def test_default_limit_is_three_per_gpu_and_three_without_gpus() -> None:
    models = tuple(cold(f"m{i}", waiting_since=9 - i) for i in range(9))
    for gpus, limit in ((0, 3), (1, 3), (2, 6)):
        made = plan(Snapshot(models, Policy(gpus=gpus)), NOW)
        assert sum(decision.replicas for decision in made.decisions.values()) == limit
