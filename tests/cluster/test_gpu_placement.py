"""Models on simulated nodes with four kinds of GPUs, as the real scheduler places the operator's pods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from corral_core.model.resource import parse_model
from corral_core.weights.files import with_spec
from tests.cluster.api import Object, at, condition
from tests.cluster.cluster import Cluster
from tests.cluster.installation import POLL_INTERVAL, Installation
from tests.operator.samples import METADATA
from tests.support.gpu_samples import A100, GPU, L4, MIG, SHARED, SLICES, dimensions
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
KINDS = {"l4": L4, "a100": A100, "slices": SLICES, "shared": SHARED}


@pytest.fixture
def gpu_nodes(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Add a node of each kind for the test alone."""
    for name, kind in KINDS.items():
        labels = {**kind.labels, "test.corral.dev/for": namespace}
        cluster.nodes.add(f"{name}-{namespace}", kind.resources, labels=labels)
    yield
    for name in KINDS:
        cluster.nodes.remove(f"{name}-{namespace}")


def add(corral: Installation, name: str, gibibytes: float, **gpu: object) -> None:
    """Add a Model of this size that runs at once, without a process; its weights count as inspected."""
    pod = {"nodeSelector": {"test.corral.dev/for": corral.namespace}}
    corral.add(name, source=f"file:///{name}.gguf", parallel="auto", minReplicas=1, gpu=gpu, pod=pod)
    spec = parse_model(corral.model(name)).spec
    metadata = replace(with_spec(METADATA, spec, 0), dimensions=dimensions(gibibytes))
    corral.cluster.api.patch(f"{corral.path(name)}/status", {"status": {"model": metadata.to_json()}})


def scheduled(corral: Installation, model: str) -> Object:
    def found() -> Object | None:
        return next((pod for pod in corral.pods(model) if at(pod, "spec", "nodeName")), None)

    pod = until(found, 30, what=f"a node for {model}'s pod", interval=POLL_INTERVAL)
    assert pod is not None
    return pod


def placed(corral: Installation, model: str) -> tuple[str, object]:
    """Return the kind of the node of the Model's pod, and its GPUs by resource."""
    pod = scheduled(corral, model)
    limits = at(pod, "spec", "containers", 0, "resources", "limits")
    assert isinstance(limits, dict)
    gpus = {name: number for name, number in limits.items() if name.startswith("nvidia.com/")}
    return str(at(pod, "spec", "nodeName")).removesuffix(f"-{corral.namespace}"), gpus


def test_each_model_gets_the_gpus_that_it_needs(corral: Installation, gpu_nodes: None) -> None:
    add(corral, "small", 8)
    add(corral, "medium", 40)
    add(corral, "given", 8, count=2, product="NVIDIA-A100-SXM4-80GB")
    add(corral, "first", 4, sharing="shared")
    add(corral, "second", 4, sharing="shared")
    add(corral, "none", 8, count=0)
    add(corral, "huge", 500, offload="full")
    corral.start_operator()
    assert placed(corral, "small") == ("slices", {MIG: "1"})
    assert placed(corral, "medium") == ("a100", {GPU: "1"})
    assert placed(corral, "given") == ("a100", {GPU: "2"})
    assert placed(corral, "first") == placed(corral, "second") == ("shared", {GPU: "1"})
    assert placed(corral, "none")[1] == {}
    corral.wait_phase("huge", "Failed", 30)
    message = str(condition(corral.model("huge"), "Scheduled")["message"])
    assert "one GPU needs 5" in message
    assert "the largest has 80 GiB" in message


def test_a_model_gets_all_gpus_of_a_node_and_the_status_says_why(corral: Installation, gpu_nodes: None) -> None:
    add(corral, "large", 200)
    corral.start_operator()
    assert placed(corral, "large") == ("a100", {GPU: "4"})
    placement = until(
        lambda: at(corral.model("large"), "status", "placement"), 30, what="placement", interval=POLL_INTERVAL
    )
    assert isinstance(placement, dict)
    assert (placement["gpus"], placement["resource"], len(placement["devices"])) == (4, GPU, 4)
    assert "one GPU needs 2" in placement["why"]
