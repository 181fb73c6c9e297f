"""Planning by the memory of shared GPUs: devices and bytes are counted together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.quantities import format_amount
from corral_core.planning.gpus.offers import gpu_offers, pod_gpu_memory, shared_memory
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import ModelState, NodeState, Policy, Snapshot
from tests.support.planning import GPU, MI, NOW, cold, gpu_node, on_gpus, plan_on, runner_status, warm

SHARED = gpu_node("shared", 1, 10, replicas=4)


def waiting(key: str, memory: int, gpus: int = 1) -> ModelState:
    return on_gpus(cold(key, waiting_since=5), gpus, memory)


def pinned(key: str, memory: int, on: str = "shared") -> ModelState:
    return on_gpus(warm(key, min_replicas=1), 1, memory, on=on)


def test_models_share_a_gpu_by_memory() -> None:
    made = plan_on([SHARED], waiting("a", 5), waiting("b", 5), waiting("c", 1)).decisions
    assert [made[key].replicas for key in "abc"] == [1, 1, 0]


def test_a_model_waits_for_memory_though_units_are_free() -> None:
    decision = plan_on([SHARED], pinned("held", 7), waiting("a", 4)).decisions["a"]
    assert decision.replicas == 0
    assert decision.reason.endswith("needs 4 MiB GPU memory; the most that is free is 3 MiB GPU memory on shared")


def test_the_memory_of_an_exclusive_gpu_is_not_counted() -> None:
    made = plan_on([gpu_node("n", 2, 10)], pinned("held", 9, on="n"), waiting("a", 9)).decisions
    assert made["a"].replicas == 1


def test_a_model_goes_to_the_node_whose_gpu_has_the_memory() -> None:
    nodes = [SHARED, gpu_node("other", 1, 10, replicas=4)]
    assert plan_on(nodes, pinned("held", 7), waiting("a", 4)).decisions["a"].placement == "other"


def test_the_reason_names_the_memory_if_other_nodes_have_no_unit() -> None:
    full = [gpu_node(name, 1, 10) for name in ("x", "y")]
    held = [pinned("held", 7), pinned("on-x", 9, on="x"), pinned("on-y", 9, on="y")]
    reason = plan_on([SHARED, *full], *held, waiting("a", 4)).decisions["a"].reason
    assert reason.endswith(": needs 4 MiB GPU memory; the most that is free is 3 MiB GPU memory on shared")


def test_a_model_with_more_memory_than_any_gpu_fails_with_the_numbers() -> None:
    decision = plan_on([SHARED], waiting("a", 11)).decisions["a"]
    assert decision.failure == "needs 11 MiB GPU memory; the most that any node has is 10 MiB GPU memory on shared"


def test_the_fewest_victims_that_free_enough_memory_are_evicted() -> None:
    idle = [on_gpus(warm(f"w{size}"), 1, size, on="shared") for size in (1, 2, 3, 4)]
    made = plan_on([SHARED], *idle, waiting("a", 4)).decisions
    assert [key for key, decision in made.items() if decision.evicted_for == "a"] == ["w4"]


def test_victims_free_units_and_memory_together() -> None:
    node = gpu_node("shared", 1, 100, replicas=2)
    idle = [on_gpus(warm("big"), 1, 60, on="shared"), on_gpus(warm("small"), 1, 5, on="shared")]
    made = plan_on([node], *idle, waiting("a", 90)).decisions
    assert [key for key, decision in made.items() if decision.evicted_for == "a"] == ["big"]
    made = plan_on([node], *idle, waiting("a", 90, gpus=1), waiting("b", 5)).decisions
    assert {key for key, decision in made.items() if decision.evicted_for} == {"big", "small"}


def test_memory_is_reserved_for_the_older_request() -> None:
    busy = on_gpus(warm("busy", runner_status(in_flight=1)), 1, 6, on="shared")
    old, young = on_gpus(cold("old", waiting_since=9), 1, 8), on_gpus(cold("young", waiting_since=1), 1, 3)
    made = plan_on([SHARED], busy, old, young).decisions
    assert (made["busy"].draining, made["old"].replicas, made["young"].replicas) == (True, 0, 0)


def test_all_pods_count_against_one_gpu_of_several_time_sliced_ones() -> None:
    node = gpu_node("n", 2, 10, replicas=4)
    made = plan_on([node], waiting("a", 6), waiting("b", 5)).decisions
    assert [made[key].replicas for key in "ab"] == [1, 0]


def test_a_unit_of_mps_has_its_own_part_of_the_memory() -> None:
    node = gpu_node("n", 1, 12, replicas=4, strategy="mps")
    made = plan_on([node], *(waiting(key, 3) for key in "abcd"), waiting("e", 3)).decisions
    assert [made[key].replicas for key in "abcde"] == [1, 1, 1, 1, 0]
    assert plan_on([node], waiting("a", 4)).decisions["a"].failure == (
        "needs 4 MiB GPU memory; the most that any node has is 3 MiB GPU memory on n"
    )


@pytest.mark.parametrize(("units", "starts"), [(1, True), (2, False)])
def test_other_pods_count_with_the_memory_divided_by_the_replicas(units: int, *, starts: bool) -> None:
    requests = {GPU: units}
    state = NodeState(SHARED, {**requests, **pod_gpu_memory(requests, 0)})
    made = plan(Snapshot((waiting("a", 7),), Policy(max_loaded=9), (state,)), NOW)
    assert (made.decisions["a"].replicas == 1) == starts


def test_a_model_of_unknown_memory_needs_a_unit_alone() -> None:
    made = plan_on([SHARED], pinned("held", 10), replace(waiting("a", 0))).decisions
    assert made["a"].replicas == 1


def test_several_units_take_memory_several_times() -> None:
    assert pod_gpu_memory({GPU: 2, "memory": 5}, 3) == {f"{GPU}:memory": 6}
    assert pod_gpu_memory({GPU: 2}, 0) == {f"{GPU}:unknown": 2}


def test_only_shared_gpus_have_memory_to_count() -> None:
    labels = {f"{GPU}.memory": "10"}
    assert shared_memory(gpu_offers({GPU: 2}, labels)) == {}
    assert shared_memory(SHARED.gpus) == {f"{GPU}:memory": 10 * MI}
    assert format_amount(f"{GPU}:memory", 10 * MI) == "10 MiB GPU memory"
