"""Models with GPUs on simulated nodes: how a real scheduler places the operator's pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_core.base.json_fields import get_object
from tests.cluster.api import ApiError, Object, at, condition
from tests.cluster.cluster import Cluster
from tests.cluster.installation import POLL_INTERVAL, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
_CLASS = "/apis/node.k8s.io/v1/runtimeclasses"


@pytest.fixture
def gpu_node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Add a node with two GPUs for the test alone, and the runtime class of the GPUs' vendor."""
    name = f"gpu-{namespace}"
    made = _make_runtime_class(cluster)
    cluster.nodes.add(name, {"nvidia.com/gpu": "2", "example.com/gpu": "1"}, labels={"test.corral.dev/for": namespace})
    yield name
    cluster.nodes.remove(name)
    if made:
        cluster.api.delete(f"{_CLASS}/nvidia")


def test_a_model_with_a_gpu_gets_it_and_the_runtime_class(corral: Installation, gpu_node: str) -> None:
    corral.start_operator()
    _add(corral, "fast", {"count": 2})
    pod = _scheduled_pod(corral, "fast")
    assert at(pod, "spec", "nodeName") == gpu_node
    assert at(pod, "spec", "containers", 0, "resources", "limits", "nvidia.com/gpu") == "2"
    assert at(pod, "spec", "runtimeClassName") == "nvidia"


def test_another_gpu_resource_can_be_set(corral: Installation, gpu_node: str) -> None:
    corral.start_operator()
    _add(corral, "other", {"count": 1, "resource": "example.com/gpu"})
    pod = _scheduled_pod(corral, "other")
    assert at(pod, "spec", "containers", 0, "resources", "limits", "example.com/gpu") == "1"


def test_a_model_without_gpus_requests_none(corral: Installation) -> None:
    corral.start_operator()
    corral.add("plain", minReplicas=1, pod={})
    pod = _scheduled_pod(corral, "plain")
    assert set(get_object(at(pod, "spec", "containers", 0, "resources", "limits"))) == {"memory"}
    assert at(pod, "spec", "runtimeClassName") is None


def test_a_model_without_a_free_gpu_waits_for_capacity(corral: Installation, gpu_node: str) -> None:
    corral.start_operator()
    _add(corral, "first", {"count": 2})
    _scheduled_pod(corral, "first")
    _add(corral, "second", {"count": 1})
    corral.wait_phase("second", "WaitingForCapacity", 30)
    reason = condition(corral.model("second"), "Scheduled")
    assert reason["status"] == "False"
    assert "Insufficient nvidia.com/gpu" in str(reason["message"])
    corral.cluster.api.delete(corral.path("first"))
    _scheduled_pod(corral, "second")


def _add(corral: Installation, name: str, gpu: dict[str, object]) -> None:
    """Add a Model that runs at once on the test's node, without a process."""
    corral.add(name, minReplicas=1, gpu=gpu, pod={"nodeSelector": {"test.corral.dev/for": corral.namespace}})


def _scheduled_pod(corral: Installation, model: str) -> Object:
    def scheduled() -> Object | None:
        return next((pod for pod in corral.pods(model) if at(pod, "spec", "nodeName")), None)

    found = until(scheduled, 30, what=f"a node for {model}'s pod", interval=POLL_INTERVAL)
    assert found is not None
    return found


def _make_runtime_class(cluster: Cluster) -> bool:
    """Create the runtime class; return False if the cluster has it already."""
    body = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"}
    try:
        cluster.api.create(_CLASS, body)
    except ApiError as error:
        if error.status != 409:
            raise
        return False
    return True
