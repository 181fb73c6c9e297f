"""Properties of the planner. World asserts at every step: no victim is busy, loading, pinned or waited for (longer than
the request it makes room for), the limit holds, nobody leaves unused, and planning again changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from corral_core.activity import FOREVER
from corral_core.planner import plan
from corral_core.snapshot import Demand, ModelState, Policy, Replica, Snapshot
from tests.core.world import Kind, Request, World
from tests.support.planning import NOW, activity, spec

KEYS = "abcde"

kinds = st.tuples(
    *(
        st.builds(
            Kind,
            key=st.just(key),
            keep_alive=st.sampled_from([0.0, 1.0, 5.0, 60.0, FOREVER]),
            load_time=st.integers(0, 4),
            leave_time=st.integers(0, 3),
            slots=st.integers(1, 3),
        )
        for key in KEYS
    )
)
requests = st.lists(
    st.builds(Request, model=st.sampled_from(KEYS), arrives=st.integers(0, 20), lasts=st.integers(1, 5)), max_size=12
)


@settings(max_examples=100, deadline=None)
@given(kinds, st.integers(1, 4), requests)
def test_every_request_is_served(kinds: tuple[Kind, ...], limit: int, requests: list[Request]) -> None:
    world = World(kinds, limit, requests)
    world.run(until=300)
    assert not any(world.waiting.values())


@settings(max_examples=60, deadline=None)
@given(kinds, st.integers(1, 4), requests, st.sets(st.sampled_from(KEYS), max_size=2))
def test_pinned_models_run_at_all_times_and_the_others_are_served_when_a_place_is_left(
    kinds: tuple[Kind, ...], limit: int, requests: list[Request], pinned: set[str]
) -> None:
    world = World(
        (Kind(key, min_replicas=1) if key in pinned else kind for key, kind in zip(KEYS, kinds, strict=True)),
        limit,
        requests,
    )
    world.run(until=300)
    assert all(world.desired[key] == 1 for key in pinned)
    unserved = {key for key, queue in world.waiting.items() if queue}
    assert not unserved or (len(pinned) >= limit and not unserved & pinned)


@settings(max_examples=60, deadline=None)
@given(kinds, st.integers(1, 4), requests)
@example(
    (Kind("a", 0.0, 4, 0), Kind("b", 0.0, 0, 0), Kind("d", 0.0, 2, 0)),
    2,
    [
        *(Request("a", 0, 4), Request("a", 0, 1), Request("a", 2, 1)),
        *(Request("b", 0, 1), Request("b", 1, 1), Request("d", 0, 3), Request("d", 0, 1)),
    ],
)
def test_no_oscillation_a_runner_is_started_only_for_requests_that_it_serves(
    kinds: tuple[Kind, ...], limit: int, requests: list[Request]
) -> None:
    world = World(kinds, limit, requests)
    world.run(until=300)
    assert world.started <= len(requests)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 3), st.integers(0, 3))
def test_steady_traffic_for_one_model_does_not_keep_another_waiting(
    slots: int, lasts: int, load: int, leave: int
) -> None:
    steady = [Request("a", second, lasts) for second in range(40)]
    lone = Request("b", 5, 1)
    pair = (Kind("a", slots=slots, load_time=load, leave_time=leave), Kind("b", load_time=load, leave_time=leave))
    world = World(pair, 1, [*steady, lone])
    world.run(until=600)
    older = sum(1 for request in steady if request.arrives <= lone.arrives)
    assert dict(world.served)[lone] - lone.arrives <= older * (lasts + 1) + 2 * (load + leave) + 4
    assert not any(world.waiting.values())


def test_two_models_that_alternate_in_one_place_take_turns_by_age() -> None:
    asked = [Request("ab"[second % 2], second, 2) for second in range(30)]
    world = World((Kind("a"), Kind("b")), 1, asked)
    world.run(until=400)
    order = [request.arrives for request, _ in world.served]
    assert order == sorted(order)
    assert len(order) == len(asked)


activities = st.builds(
    activity,
    in_flight=st.integers(0, 2),
    loaded=st.booleans(),
    keep_alive=st.sampled_from([0.0, 5.0, FOREVER]),
    expires_at=st.sampled_from([None, NOW - 5, NOW, NOW + 5]),
    last_end=st.sampled_from([None, NOW - 5]),
)


def replicas(*, terminating: bool) -> st.SearchStrategy[list[Replica]]:
    """None or one; a Model has at most one that stays, and the one before it may still be leaving."""
    one = st.builds(
        Replica,
        name=st.just("old" if terminating else "new"),
        ready=st.booleans(),
        terminating=st.just(terminating),
        started_at=st.sampled_from([NOW - 1000, NOW - 1]),
        activity=st.none() | activities,
        ready_since=st.sampled_from([None, NOW - 10, NOW - 1]),
    )
    return st.lists(one, max_size=1)


specs = st.builds(
    spec,
    min_replicas=st.sampled_from([0, 0, 1]),
    replicas=st.sampled_from([None, None, 0, 1]),
    suspend=st.sampled_from([False, False, True]),
)
states = st.builds(
    ModelState,
    key=st.text("abc", min_size=1, max_size=3),
    created=st.sampled_from([0.0, 1.0]),
    spec=specs,
    desired=st.integers(0, 1),
    replicas=st.builds(lambda new, old: (*new, *old), replicas(terminating=False), replicas(terminating=True)),
    demand=st.none() | st.builds(Demand, waiting=st.integers(1, 5), oldest=st.sampled_from([NOW - 9, NOW - 5, NOW])),
    refused=st.sampled_from([None, None, "its name belongs to another"]),
    draining=st.booleans(),
)
snapshots = st.builds(
    Snapshot,
    st.lists(states, max_size=6, unique_by=lambda state: state.key).map(tuple),
    st.builds(Policy, max_loaded=st.sampled_from([None, 1, 2])),
)


def applied(snapshot: Snapshot) -> Snapshot:
    """The snapshot right after its plan was applied: the replicas that are too many have been told to leave."""
    decisions = plan(snapshot, NOW).decisions
    return Snapshot(
        tuple(
            _applied(state, decisions[state.key].replicas, decisions[state.key].draining) for state in snapshot.models
        ),
        snapshot.policy,
    )


def _applied(state: ModelState, replicas: int, draining: bool) -> ModelState:
    left = list(state.live)[replicas:]
    told = tuple(replace(each, terminating=True) if each in left else each for each in state.replicas)
    return replace(state, desired=replicas, draining=draining, replicas=told)


@settings(max_examples=200, deadline=None)
@given(snapshots)
def test_planning_twice_changes_nothing_whatever_is_observed(snapshot: Snapshot) -> None:
    first, second = plan(snapshot, NOW), plan(applied(snapshot), NOW)
    for key, decision in first.decisions.items():
        again = second.decisions[key]
        assert (decision.replicas, decision.draining) == (again.replicas, again.draining), key


@settings(max_examples=200, deadline=None)
@given(snapshots)
def test_every_model_gets_a_decision_with_a_reason_and_the_next_time_is_to_come(snapshot: Snapshot) -> None:
    made = plan(snapshot, NOW)
    assert set(made.decisions) == {state.key for state in snapshot.models}
    assert all(decision.reason for decision in made.decisions.values())
    assert made.next is None or made.next > NOW


@settings(max_examples=200, deadline=None)
@given(snapshots)
def test_whoever_makes_room_is_idle_unpinned_and_less_wanted(snapshot: Snapshot) -> None:
    states = {state.key: state for state in snapshot.models}
    for key, decision in plan(snapshot, NOW).decisions.items():
        if decision.yields_to is None:
            continue
        state, winner = states[key], states[decision.yields_to]
        assert not state.spec.min_replicas
        assert state.spec.replicas is None
        assert decision.draining or all(replica.idle for replica in state.live)
        assert winner.demand is not None
        assert state.demand is None or state.demand.oldest > winner.demand.oldest
