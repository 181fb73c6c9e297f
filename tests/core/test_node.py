"""What a node has and what a pod asks of it, read from the API's objects."""

from __future__ import annotations

from corral_core.jsonfields import Json
from corral_core.node import Needs, Taint, Toleration, needs_of, parse_node, requests_of

GI = 2**30


def container(*, always: bool = False, limits: Json | None = None, **requests: str) -> Json:
    resources = {"requests": requests, "limits": limits or {}}
    return {"resources": resources} | ({"restartPolicy": "Always"} if always else {})


def raw_node(**spec: object) -> Json:
    status: Json = {
        "allocatable": {"cpu": "3920m", "memory": "14Gi", "pods": "110", "nvidia.com/gpu": "0"},
        "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110", "nvidia.com/gpu": "2"},
        "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
    }
    return {"metadata": {"name": "n", "labels": {"zone": "a"}}, "spec": spec, "status": status}


def test_a_node_has_what_is_allocatable() -> None:
    node = parse_node(raw_node())
    assert (node.name, node.labels, node.usable) == ("n", {"zone": "a"}, True)
    assert node.allocatable == {"cpu": 3920, "memory": 14 * GI, "pods": 110}


def test_devices_whose_plugin_is_away_count_for_the_best_state_and_reserved_memory_does_not() -> None:
    assert parse_node(raw_node()).best == {"cpu": 3920, "memory": 14 * GI, "pods": 110, "nvidia.com/gpu": 2}


def test_a_cordoned_node_and_one_that_is_not_ready_are_not_usable() -> None:
    assert not parse_node(raw_node(unschedulable=True)).usable
    assert not parse_node({**raw_node(), "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}).usable


def test_only_taints_that_keep_pods_away_are_kept() -> None:
    taints = [
        {"key": "team", "value": "red", "effect": "NoSchedule"},
        {"key": "gone", "effect": "NoExecute"},
        {"key": "rather-not", "effect": "PreferNoSchedule"},
    ]
    assert parse_node(raw_node(taints=taints)).taints == (
        Taint("team", "red", "NoSchedule"),
        Taint("gone", "", "NoExecute"),
    )


def test_containers_run_together_and_the_pod_counts_as_one() -> None:
    pod = {"containers": [container(cpu="100m", memory="1Gi"), container(memory="2Gi")]}
    assert requests_of(pod) == {"cpu": 100, "memory": 3 * GI, "pods": 1}


def test_a_limit_without_a_request_is_the_request() -> None:
    pod = {"containers": [container(cpu="1", limits={"cpu": "2", "nvidia.com/gpu": 1})]}
    assert requests_of(pod) == {"cpu": 1000, "nvidia.com/gpu": 1, "pods": 1}


def test_init_containers_run_one_after_the_other_and_before_the_others() -> None:
    pod = {
        "initContainers": [container(memory="5Gi", cpu="1"), container(memory="4Gi")],
        "containers": [container(memory="3Gi", cpu="2")],
    }
    assert requests_of(pod) == {"cpu": 2000, "memory": 5 * GI, "pods": 1}


def test_a_sidecar_counts_beside_the_containers_and_beside_the_init_containers_after_it() -> None:
    pod = {
        "initContainers": [container(memory="4Gi"), container(memory="1Gi", always=True), container(memory="6Gi")],
        "containers": [container(memory="3Gi")],
    }
    assert requests_of(pod)["memory"] == 7 * GI
    assert requests_of({**pod, "initContainers": [container(memory="1Gi", always=True)]})["memory"] == 4 * GI


def test_overhead_is_added_and_a_request_of_the_whole_pod_counts_in_place_of_its_containers() -> None:
    pod = {"containers": [container(memory="1Gi", cpu="1")], "overhead": {"memory": "1Gi", "cpu": "250m"}}
    assert requests_of(pod) == {"cpu": 1250, "memory": 2 * GI, "pods": 1}
    whole = {**pod, "resources": {"requests": {"memory": "8Gi"}}}
    assert requests_of(whole) == {"cpu": 1250, "memory": 9 * GI, "pods": 1}


def test_a_pod_without_requests_needs_a_place_for_a_pod() -> None:
    assert requests_of({"containers": [{}]}) == {"pods": 1}


def test_needs_are_all_that_a_pod_asks_of_a_node() -> None:
    pod = {
        "containers": [container(memory="1Gi")],
        "nodeSelector": {"zone": "a", "disk": "ssd"},
        "tolerations": [
            {"key": "team", "value": "red", "effect": "NoSchedule"},
            {"operator": "Exists"},
            {"key": "gone", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
    }
    assert needs_of(pod) == Needs(
        amounts=(("memory", GI), ("pods", 1)),
        selector=(("disk", "ssd"), ("zone", "a")),
        tolerations=(
            Toleration("team", "red", "NoSchedule"),
            Toleration("", None, ""),
            Toleration("gone", None, "NoExecute"),
        ),
    )


def test_a_toleration_covers_by_key_value_and_effect() -> None:
    red = Taint("team", "red", "NoSchedule")
    assert Toleration("team", "red", "").covers(red)
    assert Toleration("team", None, "NoSchedule").covers(red)
    assert Toleration("", None, "").covers(red)
    assert not Toleration("team", "blue", "").covers(red)
    assert not Toleration("team", "red", "NoExecute").covers(red)
    assert not Toleration("crew", None, "").covers(red)


def test_only_the_clusters_own_taints_pass() -> None:
    assert Taint("node.kubernetes.io/unreachable", "", "NoExecute").passing
    assert not Taint("nvidia.com/gpu", "present", "NoSchedule").passing
