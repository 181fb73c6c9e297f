"""Settings of node pools."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from corral_core.base.errors import InvalidSetting
from corral_core.planning.gpus.offers import GpuPool
from corral_core.planning.node import Taint
from corral_operator.config import from_environment
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.reconcile.planning.planner_input import possible_nodes
from tests.operator import samples

GI = 2**30
GPU_POOL = {"selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"}, "memory": "22Gi"}
NODE_POOL = {
    "name": "l4",
    "labels": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
    "resources": {"cpu": "8", "memory": "30Gi", "nvidia.com/gpu": "1"},
    "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
    "maxNodes": 3,
}


def test_gpu_pools_tell_the_memory_of_nodes_by_their_labels() -> None:
    config = from_environment({"CORRAL_GPU_POOLS": json.dumps([GPU_POOL])})
    selector = (("cloud.google.com/gke-accelerator", "nvidia-l4"),)
    assert config.pools.gpu == (GpuPool(selector, 22 * GI),)
    state = ClusterState(pools=config.pools)
    raw = samples.node("n", devices={"nvidia.com/gpu": "1"})
    raw["metadata"] = {"name": "n", "resourceVersion": "1", "labels": dict(selector)}
    state.replace(Kind.NODES, [raw, samples.node("m", devices={"nvidia.com/gpu": "1"})], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    offers = {each.node.name: each.node.gpus[0] for each in state.nodes()}
    assert (offers["n"].memory, offers["n"].selector, offers["m"].memory) == (22 * GI, selector, None)


def test_a_gpu_pool_can_be_for_one_resource() -> None:
    setting = json.dumps([{**GPU_POOL, "resource": "nvidia.com/mig-1g.5gb"}])
    [pool] = from_environment({"CORRAL_GPU_POOLS": setting}).pools.gpu
    assert pool.resource == "nvidia.com/mig-1g.5gb"


def test_a_node_pool_has_the_node_that_an_autoscaler_adds() -> None:
    environ = {"CORRAL_NODE_POOLS": json.dumps([NODE_POOL]), "CORRAL_GPU_POOLS": json.dumps([GPU_POOL])}
    [pool] = from_environment(environ).pools.node
    assert (pool.name, pool.max_nodes, pool.node.schedulable) == ("l4", 3, True)
    assert pool.node.allocatable == {"cpu": 8000, "memory": 30 * GI, "nvidia.com/gpu": 1, "pods": 110}
    assert pool.node.taints == (Taint("nvidia.com/gpu", "present", "NoSchedule"),)
    assert pool.node.gpus[0].memory == 22 * GI


def test_new_nodes_of_pools_are_possible_nodes_once_nodes_are_known() -> None:
    pools = from_environment({"CORRAL_NODE_POOLS": json.dumps([NODE_POOL])}).pools
    state = ClusterState(pools=pools)
    assert possible_nodes(state) == []
    state.replace(Kind.NODES, [samples.node("n")], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    assert [each.name for each in possible_nodes(state)] == ["n", "a new node of the pool l4"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("CORRAL_GPU_POOLS", "{}"),
        ("CORRAL_GPU_POOLS", "[1]"),
        ("CORRAL_GPU_POOLS", [{**GPU_POOL, "memory": "much"}]),
        ("CORRAL_GPU_POOLS", [{**GPU_POOL, "selector": {}}]),
        ("CORRAL_GPU_POOLS", [{**GPU_POOL, "labels": {"a": "b"}}]),
        ("CORRAL_NODE_POOLS", "pools"),
        ("CORRAL_NODE_POOLS", [{**NODE_POOL, "name": ""}]),
        ("CORRAL_NODE_POOLS", [{**NODE_POOL, "labels": {}}]),
        ("CORRAL_NODE_POOLS", [{**NODE_POOL, "resources": {"cpu": "some"}}]),
        ("CORRAL_NODE_POOLS", [{**NODE_POOL, "maxNodes": -1}]),
        ("CORRAL_NODE_POOLS", [{**NODE_POOL, "minNodes": 1}]),
        ("CORRAL_NODE_POOLS", [NODE_POOL, NODE_POOL]),
    ],
)
def test_an_invalid_pool_is_rejected_with_the_name_of_the_setting(
    setting: str, value: str | list[Mapping[str, object]]
) -> None:
    with pytest.raises(InvalidSetting, match=setting):
        from_environment({setting: value if isinstance(value, str) else json.dumps(value)})
