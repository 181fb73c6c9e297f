"""Properties of the planner with nodes; the simulation asserts the same as without nodes, and idempotent placements."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.base.durations import FOREVER
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Decision, Demand, ModelState, NodeState, Policy, Snapshot
from tests.core.world import Kind, Land, Request, Stranger, World
from tests.support.planning import NOW, node, pod_requirements, replica, runner_status, sized, spec

KEYS = "abcde"
LARGEST = 10
"""Memory of the largest model and of the smallest node: every model fits on every node."""

kinds = st.tuples(
    *(
        st.builds(
            Kind,
            key=st.just(key),
            keep_alive=st.sampled_from([0.0, 1.0, 5.0, 60.0, FOREVER]),
            load_time=st.integers(0, 4),
            leave_time=st.integers(0, 3),
            slots=st.integers(1, 3),
            memory=st.integers(1, LARGEST),
        )
        for key in KEYS
    )
)
requests = st.lists(
    st.builds(Request, model=st.sampled_from(KEYS), arrives=st.integers(0, 20), lasts=st.integers(1, 5)), max_size=12
)
NODES = ("m", "n", "o")
strangers = st.lists(
    st.builds(
        Stranger,
        node=st.sampled_from(NODES),
        memory=st.integers(1, LARGEST),
        comes=st.integers(0, 10),
        goes=st.integers(11, 40),
    ),
    max_size=3,
).map(tuple)


@st.composite
def lands(draw: st.DrawFn, *, shared: bool) -> Land:
    names = NODES[: draw(st.integers(1, len(NODES)))]
    memory = {name: draw(st.integers(LARGEST, 2 * LARGEST)) for name in names}
    others = draw(strangers) if shared else ()
    return Land(memory, tuple(each for each in others if each.node in names), draw(st.booleans()))


@settings(max_examples=80, deadline=None)
@given(kinds, st.integers(1, 6), requests, lands(shared=False))
def test_every_request_is_served(kinds: tuple[Kind, ...], limit: int, requests: list[Request], land: Land) -> None:
    world = World(kinds, limit, requests, land)
    world.run(until=400)
    assert not any(world.waiting.values())


@settings(max_examples=60, deadline=None)
@given(kinds, st.integers(1, 6), requests, lands(shared=True))
def test_every_request_is_served_beside_other_pods(
    kinds: tuple[Kind, ...], limit: int, requests: list[Request], land: Land
) -> None:
    world = World(kinds, limit, requests, land)
    world.run(until=400)
    assert not any(world.waiting.values())


@settings(max_examples=60, deadline=None)
@given(kinds, st.integers(1, 6), requests, lands(shared=False))
def test_no_oscillation_with_nodes(kinds: tuple[Kind, ...], limit: int, requests: list[Request], land: Land) -> None:
    world = World(kinds, limit, requests, land)
    world.run(until=400)
    assert world.started <= len(requests)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 3), st.integers(1, 4))
def test_steady_traffic_of_small_models_does_not_starve_a_large_one(
    slots: int, lasts: int, load: int, small: int
) -> None:
    steady = [Request("abc"[second % 3], second, lasts) for second in range(60)]
    lone = Request("z", 5, 1)
    kinds = [Kind(key, slots=slots, load_time=load, memory=small) for key in "abc"]
    world = World([*kinds, Kind("z", load_time=load, memory=LARGEST)], 9, [*steady, lone], Land({"n": LARGEST}))
    world.run(until=900)
    older = sum(1 for request in steady if request.arrives <= lone.arrives)
    assert dict(world.served)[lone] - lone.arrives <= older * (lasts + 1) + 3 * (load + 2) + 8 + Policy().min_residency
    assert not any(world.waiting.values())


@st.composite
def crowded(draw: st.DrawFn, waiters: str) -> Snapshot:
    """Build pending Models, oldest request first, with nodes full of idle and busy Models."""
    models = [
        ModelState(
            key,
            0.0,
            spec(),
            0,
            demand=Demand(1, NOW - 5 + number),
            requirements=pod_requirements(draw(st.integers(1, LARGEST))),
        )
        for number, key in enumerate(waiters)
    ]
    nodes = []
    for name in NODES:
        taken = 0
        for number in range(draw(st.integers(1, 4))):
            said = runner_status(in_flight=draw(st.integers(0, 1)), keep_alive=draw(st.sampled_from([1.0, 60.0])))
            pinned = {"min_replicas": draw(st.sampled_from([0, 0, 0, 1]))}
            size = draw(st.integers(1, 5))
            state = ModelState(f"{name}{number}", 0.0, spec(**pinned), 1, (replica(said),))
            models.append(sized(state, size, on=name))
            taken += size
        nodes.append(NodeState(node(name, taken + draw(st.integers(0, 2))), {"memory": taken}))
    return Snapshot(tuple(models), Policy(max_loaded=99), tuple(nodes))


@settings(max_examples=150, deadline=None)
@given(crowded("w"))
def test_evictions_free_capacity_on_one_node_and_none_is_unneeded(snapshot: Snapshot) -> None:
    made = plan(snapshot, NOW)
    winner = made.decisions["w"]
    states = {state.key: state for state in snapshot.models}
    picked = [key for key, decision in made.decisions.items() if decision.evicted_for == "w"]
    free = {each.node.name: each.node.allocatable["memory"] - each.requested["memory"] for each in snapshot.nodes}
    wanted = _memory(states["w"])
    if winner.replicas:
        assert picked == []
        assert free[winner.placement] >= wanted
        return
    assert max(free.values()) < wanted, "a pending model starts if a node has capacity"
    freed = [states[key].replicas[0].requests["memory"] for key in picked]
    assert {states[key].replicas[0].node for key in picked} <= {winner.placement}
    if picked:
        assert free[winner.placement] + sum(freed) >= wanted
        assert all(free[winner.placement] + sum(freed) - one < wanted for one in freed), "every victim is needed"
    unpinned = [state for state in snapshot.models if state.key != "w" and not state.spec.min_replicas]
    could = {
        name: room + sum(_memory(each) for each in unpinned if each.replicas[0].node == name)
        for name, room in free.items()
    }
    assert bool(picked) == (max(could.values()) >= wanted), "victims are selected if any node can be freed"


@settings(max_examples=150, deadline=None)
@given(crowded("w"))
def test_no_further_victims_while_the_selected_ones_terminate(snapshot: Snapshot) -> None:
    first = plan(snapshot, NOW).decisions
    second = plan(replace(snapshot, models=tuple(_applied(state, first[state.key]) for state in snapshot.models)), NOW)
    gone = {key for key, decision in first.items() if not decision.replicas}
    drained = {key for key, decision in first.items() if decision.draining}
    assert {key for key, decision in second.decisions.items() if not decision.replicas} <= gone
    assert {key for key, decision in second.decisions.items() if decision.draining} <= drained


def _applied(state: ModelState, decision: Decision) -> ModelState:
    """Return the Model after the decision is applied: its replica terminates or drains."""
    told = tuple(replace(one, terminating=True) for one in state.replicas) if not decision.replicas else state.replicas
    return replace(
        state, desired=decision.replicas, draining=decision.draining, placement=decision.placement, replicas=told
    )


def _memory(state: ModelState) -> int:
    assert state.requirements is not None
    return dict(state.requirements.requests)["memory"]
