"""Properties of the planner without nodes.

The simulation asserts at every step: no victim is busy, loading, pinned or has requests older than the one it is
evicted for; the limit holds; no runner is unloaded unused; the plan is idempotent.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from corral_core.base.durations import FOREVER
from corral_core.planning.eviction import is_idle
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Demand, ModelState, Policy, Replica, Snapshot
from tests.core.world import Kind, Request, World
from tests.support.planning import NOW, runner_status, spec

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
def test_pinned_models_always_run_and_others_are_served_below_the_limit(
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
def test_no_oscillation(kinds: tuple[Kind, ...], limit: int, requests: list[Request]) -> None:
    world = World(kinds, limit, requests)
    world.run(until=300)
    assert world.started <= len(requests)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 3), st.integers(0, 3))
def test_steady_traffic_of_one_model_does_not_starve_another(slots: int, lasts: int, load: int, leave: int) -> None:
    steady = [Request("a", second, lasts) for second in range(40)]
    lone = Request("b", 5, 1)
    pair = (Kind("a", slots=slots, load_time=load, leave_time=leave), Kind("b", load_time=load, leave_time=leave))
    world = World(pair, 1, [*steady, lone])
    world.run(until=600)
    older = sum(1 for request in steady if request.arrives <= lone.arrives)
    assert dict(world.served)[lone] - lone.arrives <= older * (lasts + 1) + 2 * (load + leave) + 4
    assert not any(world.waiting.values())


def test_two_models_alternate_by_age_at_a_limit_of_one() -> None:
    asked = [Request("ab"[second % 2], second, 2) for second in range(30)]
    world = World((Kind("a"), Kind("b")), 1, asked)
    world.run(until=400)
    order = [request.arrives for request, _ in world.served]
    assert order == sorted(order)
    assert len(order) == len(asked)


@settings(max_examples=25, deadline=None)
@given(
    kinds,
    st.integers(1, 4),
    requests,
    st.dictionaries(st.sampled_from("vwxyz"), st.sampled_from(["busy", "loading", "silent"]), min_size=1),
    st.lists(st.integers(0, 20), max_size=6),
)
def test_runners_that_never_end_a_request_or_never_load_block_no_other_model(
    kinds: tuple[Kind, ...], limit: int, requests: list[Request], hostile: dict[str, str], flood: list[int]
) -> None:
    kinds = (*kinds, *(Kind(key, hostile=how) for key, how in hostile.items()))
    forever = [Request(key, arrives, 1) for key in hostile for arrives in (0, *flood)]
    policy = Policy(eviction_timeout=5, load_timeout=6, min_residency=2)
    world = World(kinds, limit, [*requests, *forever], policy=policy)
    while world.now < 600 and (world.coming or any(world.waiting[kind.key] for kind in kinds if not kind.hostile)):
        world.step()
    assert not any(world.waiting[kind.key] for kind in kinds if not kind.hostile)


activities = st.builds(
    runner_status,
    in_flight=st.integers(0, 2),
    loaded=st.booleans(),
    keep_alive=st.sampled_from([0.0, 5.0, FOREVER]),
    expires_at=st.sampled_from([None, NOW - 5, NOW, NOW + 5]),
    last_end=st.sampled_from([None, NOW - 5]),
)


def replicas(*, terminating: bool) -> st.SearchStrategy[list[Replica]]:
    """Zero or one replica; a Model has at most one live replica and a terminating one before it."""
    one = st.builds(
        Replica,
        name=st.just("old" if terminating else "new"),
        ready=st.booleans(),
        terminating=st.just(terminating),
        started_at=st.sampled_from([NOW - 1000, NOW - 1]),
        status=st.none() | activities,
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
    rejection=st.sampled_from([None, None, "its name belongs to another"]),
    draining=st.booleans(),
)
snapshots = st.builds(
    Snapshot,
    st.lists(states, max_size=6, unique_by=lambda state: state.key).map(tuple),
    st.builds(Policy, max_loaded=st.sampled_from([None, 1, 2])),
)


def applied(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot after its plan is applied: surplus replicas terminate."""
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
def test_plan_is_idempotent(snapshot: Snapshot) -> None:
    first, second = plan(snapshot, NOW), plan(applied(snapshot), NOW)
    for state in snapshot.models:
        decision, again = first.decisions[state.key], second.decisions[state.key]
        unloaded = decision.draining and is_idle(state) and (again.replicas, again.draining) == (0, False)
        # An idle Model with pending requests drains in one plan, and is unloaded by the next one if it is idle still.
        assert unloaded or (decision.replicas, decision.draining) == (again.replicas, again.draining), state.key


@settings(max_examples=200, deadline=None)
@given(snapshots)
def test_every_model_has_a_decision_with_a_reason_and_replan_at_is_in_the_future(snapshot: Snapshot) -> None:
    made = plan(snapshot, NOW)
    assert set(made.decisions) == {state.key for state in snapshot.models}
    assert all(decision.reason for decision in made.decisions.values())
    assert made.replan_at is None or made.replan_at > NOW


@settings(max_examples=200, deadline=None)
@given(snapshots)
def test_victims_are_idle_unpinned_and_have_no_older_requests(snapshot: Snapshot) -> None:
    states = {state.key: state for state in snapshot.models}
    for key, decision in plan(snapshot, NOW).decisions.items():
        if decision.evicted_for is None:
            continue
        state, winner = states[key], states[decision.evicted_for]
        # A Model whose load has stalled or whose turn or deadline is over goes behind the requests that wait now.
        gives_way = decision.age_floor is not None
        assert not state.spec.min_replicas
        assert state.spec.replicas is None
        assert gives_way or decision.draining or all(replica.idle for replica in state.live)
        assert winner.demand is not None
        assert gives_way or state.demand is None or state.demand.oldest > winner.demand.oldest
