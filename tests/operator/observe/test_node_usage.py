"""Node usage: what pods take of the nodes, as pods are created, change and end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.quantities import sum_amounts
from corral_core.planning.dra_offers import CLAIMED_MEMORY, DevicePool, DraDevice
from corral_core.planning.gpus.offers import HOSTNAME
from corral_core.planning.node import parse_node
from corral_operator.observe.node_usage import NodeUsage, PodUsage
from tests.operator import samples
from tests.support.gpu_samples import GPU


def usage_of(*names: str) -> NodeUsage:
    usage = NodeUsage()
    for name in names:
        usage.set_node(name, parse_node(samples.node(name)))
    return usage


@pytest.fixture
def usage() -> NodeUsage:
    return usage_of("m", "n")


def requested(usage: NodeUsage) -> dict[str, dict[str, int]]:
    return {state.node.name: dict(state.requested) for state in usage.states()}


def test_a_pod_counts_on_its_node_until_it_is_gone(usage: NodeUsage) -> None:
    usage.update_pod(None, PodUsage("n", {"memory": 5}))
    assert requested(usage) == {"m": {}, "n": {"memory": 5}}
    usage.update_pod(PodUsage("n", {"memory": 5}), PodUsage("n", {"memory": 7}))
    assert requested(usage)["n"] == {"memory": 7}
    usage.update_pod(PodUsage("n", {"memory": 7}), None)
    assert requested(usage)["n"] == {}


def test_the_devices_of_a_node_count_until_their_slice_is_gone(usage: NodeUsage) -> None:
    pool = DevicePool("n", "n", 1, (DraDevice("gpu-0", 24),))
    usage.update_pool(None, pool)
    assert [state.node.allocatable.get(CLAIMED_MEMORY) for state in usage.states()] == [None, 24]
    usage.update_pool(pool, None)
    assert [state.node.allocatable.get(CLAIMED_MEMORY) for state in usage.states()] == [None, None]


def test_a_pod_that_arrives_before_its_node_counts() -> None:
    usage = usage_of()
    usage.update_pod(None, PodUsage("n", {"memory": 5}))
    assert usage.states() == ()
    usage.set_node("n", parse_node(samples.node("n")))
    assert requested(usage) == {"n": {"memory": 5}}
    usage.set_node("n", None)
    assert usage.states() == ()


def test_states_of_unchanged_nodes_are_the_same_objects(usage: NodeUsage) -> None:
    before = {state.node.name: state for state in usage.states()}
    usage.update_pod(None, PodUsage("n", {"memory": 5}))
    after = {state.node.name: state for state in usage.states()}
    assert after["m"] is before["m"]
    assert usage.states() is usage.states()


def test_gpus_of_all_vendors_are_counted(usage: NodeUsage) -> None:
    usage.set_node("m", parse_node(samples.node("m", devices={"nvidia.com/gpu": "2", "amd.com/gpu": "1"})))
    assert usage.gpus() == 3


def test_slices_count_as_gpus_and_replicas_by_their_gpus(usage: NodeUsage) -> None:
    raw = samples.node("m", devices={"nvidia.com/mig-1g.5gb": "7", "nvidia.com/gpu.shared": "8"})
    raw["metadata"] = {"name": "m", "labels": {"nvidia.com/gpu.replicas": "4"}}
    usage.set_node("m", parse_node(raw))
    assert usage.gpus() == 7 + 2


def test_a_node_is_alive_unless_its_kubelet_does_not_report(usage: NodeUsage) -> None:
    usage.set_node("unreachable", parse_node(samples.node("unreachable", ready="Unknown")))
    usage.set_node("not-ready", parse_node(samples.node("not-ready", ready="False")))
    names = ("n", "not-ready", "unreachable", "absent")
    assert [usage.is_alive(name) for name in names] == [True, True, False, False]


def memory_of_gpus(usage: NodeUsage) -> list[int | None]:
    return [offer.memory for state in usage.states() for offer in state.node.gpus]


def test_reported_memory_of_gpus_is_forgotten_with_the_node() -> None:
    node = parse_node(samples.with_metadata(samples.node("m", devices={GPU: "1"}), labels={HOSTNAME: "m"}))
    usage = usage_of()
    assert not usage.set_gpu_memory("m", GPU, 5)
    usage.set_node("m", node)
    assert usage.set_gpu_memory("m", GPU, 5)
    assert not usage.set_gpu_memory("m", GPU, 5)
    assert memory_of_gpus(usage) == [5]
    usage.set_node("m", None)
    usage.set_node("m", node)
    assert memory_of_gpus(usage) == [None]


pod_usages = st.none() | st.builds(
    PodUsage, st.sampled_from(["", "m", "n"]), st.dictionaries(st.sampled_from(["cpu", "memory"]), st.integers(1, 9))
)


@given(st.lists(st.tuples(st.integers(0, 4), pod_usages), max_size=30))
def test_the_sums_equal_those_of_the_present_pods(changes: list[tuple[int, PodUsage | None]]) -> None:
    usage, present = usage_of("m", "n"), dict[int, PodUsage | None]()
    for pod, after in changes:
        usage.update_pod(present.get(pod), after)
        present[pod] = after
    for name, sums in requested(usage).items():
        assert sums == sum_amounts(each.requests for each in present.values() if each is not None and each.node == name)
