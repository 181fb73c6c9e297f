"""Parsing of nodes and pod requirements from API objects."""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject
from corral_core.planning.node import PodRequirements, Taint, Toleration, parse_node, pod_requests, pod_requirements

GI = 2**30


def container(*, always: bool = False, limits: JsonObject | None = None, **requests: str) -> JsonObject:
    resources = {"requests": requests, "limits": limits or {}}
    return {"resources": resources} | ({"restartPolicy": "Always"} if always else {})


def raw_node(**spec: object) -> JsonObject:
    status: JsonObject = {
        "allocatable": {"cpu": "3920m", "memory": "14Gi", "pods": "110", "nvidia.com/gpu": "0"},
        "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110", "nvidia.com/gpu": "2"},
        "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
    }
    return {"metadata": {"name": "n", "labels": {"zone": "a"}}, "spec": spec, "status": status}


def test_node_has_its_allocatable_resources() -> None:
    node = parse_node(raw_node())
    assert (node.name, node.labels, node.schedulable) == ("n", {"zone": "a"}, True)
    assert node.allocatable == {"cpu": 3920, "memory": 14 * GI, "pods": 110}


def test_max_allocatable_includes_devices_without_their_plugin_but_not_reserved_memory() -> None:
    assert parse_node(raw_node()).max_allocatable == {"cpu": 3920, "memory": 14 * GI, "pods": 110, "nvidia.com/gpu": 2}


def test_cordoned_or_unready_node_is_not_schedulable() -> None:
    assert not parse_node(raw_node(unschedulable=True)).schedulable
    assert not parse_node(
        {**raw_node(), "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    ).schedulable


def test_only_blocking_taints_are_parsed() -> None:
    taints = [
        {"key": "team", "value": "red", "effect": "NoSchedule"},
        {"key": "gone", "effect": "NoExecute"},
        {"key": "rather-not", "effect": "PreferNoSchedule"},
    ]
    assert parse_node(raw_node(taints=taints)).taints == (
        Taint("team", "red", "NoSchedule"),
        Taint("gone", "", "NoExecute"),
    )


def test_container_requests_are_summed_and_the_pod_counts_as_one() -> None:
    pod = {"containers": [container(cpu="100m", memory="1Gi"), container(memory="2Gi")]}
    assert pod_requests(pod) == {"cpu": 100, "memory": 3 * GI, "pods": 1}


def test_limit_without_request_is_the_request() -> None:
    pod = {"containers": [container(cpu="1", limits={"cpu": "2", "nvidia.com/gpu": 1})]}
    assert pod_requests(pod) == {"cpu": 1000, "nvidia.com/gpu": 1, "pods": 1}


def test_init_containers_run_sequentially_before_the_containers() -> None:
    pod = {
        "initContainers": [container(memory="5Gi", cpu="1"), container(memory="4Gi")],
        "containers": [container(memory="3Gi", cpu="2")],
    }
    assert pod_requests(pod) == {"cpu": 2000, "memory": 5 * GI, "pods": 1}


def test_sidecar_adds_to_containers_and_later_init_containers() -> None:
    pod = {
        "initContainers": [container(memory="4Gi"), container(memory="1Gi", always=True), container(memory="6Gi")],
        "containers": [container(memory="3Gi")],
    }
    assert pod_requests(pod)["memory"] == 7 * GI
    assert pod_requests({**pod, "initContainers": [container(memory="1Gi", always=True)]})["memory"] == 4 * GI


def test_overhead_is_added_and_pod_level_requests_override_container_requests() -> None:
    pod = {"containers": [container(memory="1Gi", cpu="1")], "overhead": {"memory": "1Gi", "cpu": "250m"}}
    assert pod_requests(pod) == {"cpu": 1250, "memory": 2 * GI, "pods": 1}
    whole = {**pod, "resources": {"requests": {"memory": "8Gi"}}}
    assert pod_requests(whole) == {"cpu": 1250, "memory": 9 * GI, "pods": 1}


def test_pod_without_requests_counts_as_one_pod() -> None:
    assert pod_requests({"containers": [{}]}) == {"pods": 1}


def test_pod_requirements_have_requests_selector_tolerations_and_affinity() -> None:
    pod = {
        "containers": [container(memory="1Gi")],
        "nodeSelector": {"zone": "a", "disk": "ssd"},
        "tolerations": [
            {"key": "team", "value": "red", "effect": "NoSchedule"},
            {"operator": "Exists"},
            {"key": "gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
    }
    assert pod_requirements(pod) == PodRequirements(
        requests=(("memory", GI), ("pods", 1)),
        node_selector=(("disk", "ssd"), ("zone", "a")),
        tolerations=(
            Toleration("team", "red", "NoSchedule"),
            Toleration("", None, ""),
            Toleration("gone", None, "NoExecute"),
        ),
    )


def test_toleration_matches_key_value_and_effect() -> None:
    red = Taint("team", "red", "NoSchedule")
    assert Toleration("team", "red", "").tolerates(red)
    assert Toleration("team", None, "NoSchedule").tolerates(red)
    assert Toleration("", None, "").tolerates(red)
    assert not Toleration("team", "blue", "").tolerates(red)
    assert not Toleration("team", "red", "NoExecute").tolerates(red)
    assert not Toleration("crew", None, "").tolerates(red)


def test_only_taints_of_the_cluster_are_temporary() -> None:
    assert Taint("node.kubernetes.io/unreachable", "", "NoExecute").temporary
    assert not Taint("nvidia.com/gpu", "present", "NoSchedule").temporary
