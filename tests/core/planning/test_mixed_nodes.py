"""Properties of the planner on nodes with exclusive and shared GPUs; ``bench/plan_simulation.py`` runs 10^5 steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.base.quantities import sum_amounts
from corral_core.planning.eviction import is_idle
from corral_core.planning.node_fit import fits
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import ModelState, NodeState, Policy, Snapshot
from tests.core.mixed_nodes import MAX_WAIT, simulate
from tests.core.world import Kind, Land, Request, World
from tests.support.planning import MI, NOW, cold, gpu_node, on_gpus, runner_status, warm

LARGEST = 10
"""MiB of the largest model and of the smallest GPU."""


@pytest.mark.parametrize("seed", [1, 8])
def test_no_request_starves_on_mixed_nodes(seed: int) -> None:
    report = simulate(seed, 150)
    assert max(report.longest_wait.values()) <= MAX_WAIT


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 3), st.integers(1, 4))
def test_steady_traffic_of_small_models_does_not_starve_one_that_needs_a_whole_shared_gpu(
    slots: int, lasts: int, load: int, small: int
) -> None:
    steady = [Request("abc"[second % 3], second, lasts) for second in range(60)]
    lone = Request("z", 5, 1)
    kinds = [Kind(key, slots=slots, load_time=load, gpus=1, gpu_memory=small * MI) for key in "abc"]
    large = Kind("z", load_time=load, gpus=1, gpu_memory=LARGEST * MI)
    world = World([*kinds, large], 9, [*steady, lone], Land(gpu_nodes=(gpu_node("n", 1, LARGEST, replicas=8),)))
    world.run(until=900)
    older = sum(1 for request in steady if request.arrives <= lone.arrives)
    assert dict(world.served)[lone] - lone.arrives <= older * (lasts + 1) + 3 * (load + 2) + 8 + Policy().min_residency
    assert not any(world.waiting.values())


@st.composite
def crowded(draw: st.DrawFn) -> Snapshot:
    """Build a pending Model, and nodes with shared and exclusive GPUs full of idle, busy and pinned Models."""
    models = [on_gpus(cold("w", waiting_since=5), draw(st.integers(1, 2)), draw(st.integers(1, LARGEST)))]
    nodes = []
    for name in ("m", "n", "o"):
        held: list[ModelState] = []
        for number in range(draw(st.integers(1, 4))):
            said = runner_status(in_flight=draw(st.integers(0, 1)), keep_alive=draw(st.sampled_from([1.0, 60.0])))
            model = warm(f"{name}{number}", said, min_replicas=draw(st.sampled_from([0, 0, 0, 1])))
            held.append(on_gpus(model, 1, draw(st.integers(1, 5)), on=name))
        taken = sum_amounts(model.replicas[0].requests for model in held)
        free = draw(st.integers(0, 2))
        used = taken["nvidia.com/gpu:memory"] // MI
        node = (
            gpu_node(name, 1, used + free, replicas=len(held) + draw(st.integers(1, 2)))
            if draw(st.booleans())
            else gpu_node(name, len(held) + free, LARGEST)
        )
        models += held
        nodes.append(NodeState(node, taken))
    return Snapshot(tuple(models), Policy(max_loaded=99), tuple(nodes))


@settings(max_examples=150, deadline=None)
@given(crowded())
def test_the_fewest_victims_free_devices_and_memory_on_one_node(snapshot: Snapshot) -> None:
    """Idle Models are preferred, however many they are, because busy ones have to finish their requests first."""
    made = plan(snapshot, NOW).decisions
    winner, picked = made["w"], [key for key, decision in made.items() if decision.evicted_for == "w"]
    choices = [list(_sets(snapshot, number, idle=idle)) for idle in (True, False) for number in range(5)]
    fewest = next((found for found in choices if found), [])
    if fewest and not fewest[0][1]:
        assert winner.replicas == 1
        assert not picked
        return
    assert winner.replicas == 0
    assert bool(picked) == bool(fewest)
    assert not picked or (winner.placement, frozenset(picked)) in fewest


def _sets(snapshot: Snapshot, number: int, *, idle: bool) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each node, and each set of so many Models there without which the pending Model fits; or of idle ones."""
    wanted = snapshot.models[0].requirements
    assert wanted is not None
    for state in snapshot.nodes:
        there = [each for each in snapshot.models[1:] if each.replicas[0].node == state.node.name]
        unpinned = [each for each in there if not each.spec.min_replicas and (is_idle(each) or not idle)]
        for chosen in combinations(unpinned, number):
            left = sum_amounts(each.replicas[0].requests for each in there if each not in chosen)
            free = {name: amount - left.get(name, 0) for name, amount in state.node.allocatable.items()}
            if fits(free, wanted):
                yield state.node.name, frozenset(each.key for each in chosen)
