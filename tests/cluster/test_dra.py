"""Models that share the GPUs of a DRA driver on simulated nodes: the real scheduler allocates their claims."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corral_core.planning.dra_offers import CLAIM_ANNOTATION
from tests.cluster.api import Object, at, condition
from tests.cluster.cluster import Cluster
from tests.cluster.installation import POLL_INTERVAL, Installation
from tests.support.fake_gpus import DRIVER, RESOURCES, FakeGpu, device_class, resource_slice
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
_GPU = FakeGpu(0)


@pytest.fixture
def gpu_node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Add a node for the test alone, whose GPU a DRA driver publishes."""
    name = f"gpu-{namespace}"
    cluster.nodes.add(name, labels={"test.corral.dev/for": namespace})
    cluster.api.create(f"{RESOURCES}/deviceclasses", device_class())
    cluster.api.create(f"{RESOURCES}/resourceslices", resource_slice(name, [_GPU]))
    yield name
    cluster.api.delete(f"{RESOURCES}/resourceslices/{name}-{DRIVER}")
    cluster.api.delete(f"{RESOURCES}/deviceclasses/{DRIVER}")
    cluster.nodes.remove(name)


def test_models_share_a_gpu_by_memory_and_one_that_does_not_fit_waits(corral: Installation, gpu_node: str) -> None:
    corral.start_operator(CORRAL_RUNNER_IMAGE_CUDA="corral/runner-cuda:dev")
    _add(corral, "first")
    pod = _scheduled_pod(corral, "first")
    memory = int(str(at(pod, "metadata", "annotations", CLAIM_ANNOTATION))) >> 20
    smaller = resource_slice(gpu_node, [_GPU], memory=f"{memory * 5 // 2}Mi")
    corral.cluster.api.patch(f"{RESOURCES}/resourceslices/{gpu_node}-{DRIVER}", {"spec": smaller["spec"]})
    _add(corral, "second")
    _scheduled_pod(corral, "second")
    assert [_allocated(corral, name) for name in ("first", "second")] == [("gpu-0", f"{memory}Mi")] * 2
    _add(corral, "third")
    corral.wait_phase("third", "WaitingForCapacity", 30)
    assert condition(corral.model("third"), "Scheduled")["status"] == "False"
    corral.cluster.api.delete(corral.path("first"))
    _scheduled_pod(corral, "third")


def test_a_model_that_needs_a_newer_gpu_gets_none(corral: Installation, gpu_node: str) -> None:
    corral.start_operator(CORRAL_RUNNER_IMAGE_CUDA="corral/runner-cuda:dev")
    _add(corral, "newer", computeCapability="9.0")
    corral.wait_phase("newer", "Failed", 30)
    assert corral.pods("newer") == []
    _add(corral, "same", computeCapability="8.9", product="NVIDIA-L4", memory="20Gi")
    _scheduled_pod(corral, "same")


def _add(corral: Installation, name: str, **gpu: object) -> None:
    """Add a Model that runs at once on the test's node, without a process."""
    shared = {"count": 1, "sharing": "shared", **gpu}
    corral.add(name, minReplicas=1, gpu=shared, pod={"nodeSelector": {"test.corral.dev/for": corral.namespace}})


def _scheduled_pod(corral: Installation, model: str) -> Object:
    def scheduled() -> Object | None:
        return next((pod for pod in corral.pods(model) if at(pod, "spec", "nodeName")), None)

    found = until(scheduled, 30, what=f"a node for {model}'s pod", interval=POLL_INTERVAL)
    assert found is not None
    return found


def _allocated(corral: Installation, model: str) -> tuple[object, object]:
    """Return the device of the Model's claim and the memory that it takes of it."""
    path = f"{RESOURCES}/namespaces/{corral.namespace}/resourceclaims"
    (claim,) = corral.cluster.api.items(path, labelSelector=f"corral.dev/model={model}")
    result = at(claim, "status", "allocation", "devices", "results", 0)
    return at(result, "device"), at(result, "consumedCapacity", "memory")
