"""Deadlines of evictions: drains, turns, and starts without progress."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.planning.plan_memory import RESUME_SHARE, PlanMemory
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Decision, ModelState, Plan, Policy, Snapshot
from tests.support.planning import NOW, cold, decide, leaving, loading, plan_for, runner_status, warm

POLICY = Policy(max_loaded=1)
BUSY = runner_status(in_flight=1)
TIMEOUT = POLICY.eviction_timeout
RESUME = RESUME_SHARE * TIMEOUT


def drained(seconds: float) -> ModelState:
    """Build a busy victim that drains since ``seconds`` before NOW."""
    return replace(warm("a", BUSY, draining=True), draining_since=NOW - seconds)


def turn(seconds: float, *, waiting_since: float) -> ModelState:
    """Build a busy Model that is loaded since ``seconds`` before NOW."""
    return replace(warm("a", BUSY, waiting_since=waiting_since), loaded_since=NOW - seconds)


def test_a_drain_begins_with_its_deadline() -> None:
    made = plan_for(warm("a", BUSY), cold("w", waiting_since=0), limit=1)
    assert (made.decisions["a"].draining, made.decisions["a"].draining_since) == (True, NOW)
    assert made.replan_at == NOW + TIMEOUT


def test_a_victim_that_is_always_busy_is_ended_at_the_deadline() -> None:
    waiting = cold("w", waiting_since=9)
    before = decide(drained(TIMEOUT - 1), waiting, limit=1)
    assert (before.replicas, before.draining, before.interrupt) == (1, True, False)
    after = decide(drained(TIMEOUT), waiting, limit=1)
    assert (after.replicas, after.interrupt, after.evicted_for, after.age_floor) == (0, True, "w", NOW)
    assert "did not finish within 5m0s" in after.reason


def test_a_victim_that_is_idle_at_the_deadline_is_unloaded_without_interruption() -> None:
    idle = replace(warm("a", draining=True), draining_since=NOW - TIMEOUT)
    decision = decide(idle, cold("w", waiting_since=9), limit=1)
    assert (decision.replicas, decision.draining_since, decision.age_floor) == (0, NOW - TIMEOUT, None)


@pytest.mark.parametrize(("ended", "interrupt"), [(TIMEOUT - 1, False), (TIMEOUT, True)])
def test_terminating_runners_are_ended_after_the_timeout_while_a_model_waits(ended: float, interrupt: bool) -> None:
    terminating = replace(leaving("a"), draining_since=NOW - ended)
    assert decide(terminating, cold("w", waiting_since=0), limit=1).interrupt == interrupt
    assert not decide(terminating, cold("w"), limit=1).interrupt


def test_pending_requests_of_any_age_protect_a_model_for_one_turn() -> None:
    waiting = cold("w", waiting_since=TIMEOUT)
    assert not decide(turn(TIMEOUT - 1, waiting_since=10_000), waiting, limit=1).draining
    assert not decide(turn(TIMEOUT, waiting_since=10_000), cold("w", waiting_since=TIMEOUT - 1), limit=1).draining
    decision = decide(turn(TIMEOUT, waiting_since=10_000), waiting, limit=1)
    assert (decision.draining, decision.age_floor) == (True, NOW)


def test_a_model_whose_turn_is_over_goes_behind_those_that_wait() -> None:
    memory, models = PlanMemory(), (turn(TIMEOUT, waiting_since=10_000), cold("w", waiting_since=TIMEOUT))
    snapshot = Snapshot(models, POLICY)
    memory.adopt(snapshot, plan(snapshot, NOW), NOW)
    again = memory.complete(models[0])
    assert again.demand is not None
    assert (again.draining, again.demand.oldest) == (True, NOW)
    gone = replace(again, desired=0, replicas=(), draining=False)
    assert plan(Snapshot((gone, models[1]), POLICY), NOW).decisions["w"].replicas == 1


def test_a_stalled_load_is_evicted_whatever_its_requests() -> None:
    waiting, late = cold("w", waiting_since=9), NOW - 60 + POLICY.load_timeout
    stalled = loading("a", waiting_since=10_000)
    assert decide(stalled, waiting, limit=1, now=late - 1).replicas == 1
    decision = decide(stalled, waiting, limit=1, now=late)
    assert (decision.replicas, decision.evicted_for, decision.age_floor, decision.interrupt) == (0, "w", late, True)
    assert decision.reason == "load timeout: no progress for 5m0s (OLLAMA_LOAD_TIMEOUT), frees capacity for w"
    assert decide(stalled, cold("w"), limit=1, now=late).replicas == 1, "no other Model needs its place"


def test_a_start_without_a_node_is_evicted_after_the_load_timeout() -> None:
    unscheduled = replace(cold("a", waiting_since=10_000), desired=1, starting_since=NOW - POLICY.load_timeout)
    waiting = cold("w", waiting_since=9)
    assert plan_for(replace(unscheduled, starting_since=NOW - 1), waiting, limit=1).decisions["w"].replicas == 0
    made = plan_for(unscheduled, waiting, limit=1)
    assert (made.decisions["a"].replicas, made.decisions["a"].evicted_for) == (0, "w")


def test_a_model_that_loads_again_drains_like_a_busy_one() -> None:
    """A Model whose author edits it again and again is always loading."""
    again = loading("a")
    assert not decide(again, cold("w", waiting_since=0), limit=1).draining
    assert decide(replace(again, loaded_since=NOW - 30), cold("w", waiting_since=0), limit=1).draining


def test_a_model_is_loaded_since_its_first_runner_whatever_replaces_it() -> None:
    memory = PlanMemory()

    def adopt(model: ModelState, replicas: int, now: float) -> float | None:
        memory.adopt(Snapshot((model,), POLICY), Plan({"a": Decision(replicas, "")}), now)
        return memory.complete(model).loaded_since

    assert adopt(loading("a"), 1, NOW) is None
    assert adopt(warm("a"), 1, NOW + 5) == NOW + 5
    assert adopt(loading("a"), 1, NOW + 9) == NOW + 5
    assert adopt(warm("a"), 1, NOW + 19) == NOW + 5
    assert adopt(leaving("a"), 0, NOW + 29) is None


@pytest.mark.parametrize(("pause", "since"), [(RESUME - 1, 0.0), (RESUME + 2, RESUME + 2)])
def test_a_drain_that_starts_again_soon_keeps_its_deadline(pause: float, since: float) -> None:
    memory, snapshot = PlanMemory(), Snapshot((warm("a", BUSY),), POLICY)

    def adopt(now: float, since: float | None) -> Decision:
        decision = Decision(1, "", draining=since is not None, draining_since=since)
        return memory.adopt(snapshot, Plan({"a": decision}), now).decisions["a"]

    adopt(NOW, NOW)
    adopt(NOW + 1, None)
    adopt(NOW + pause - 0.5, None)
    assert adopt(NOW + pause, NOW + pause).draining_since == NOW + since
