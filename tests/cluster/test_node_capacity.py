"""Capacity of nodes: the planner's decisions from nodes and pods, with a real scheduler."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
import pytest

from tests.cluster.api import at, condition
from tests.cluster.cluster import Cluster
from tests.cluster.fake_kubelet import ANNOTATION
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
LONG = 400
"""Tokens of a response that takes seconds."""

MEMORY = {"memory": "2Gi"}
"""Requests of a Model of which a node with 3 GiB can run one."""

GPU = "example.com/gpu"


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Add a node for the test alone, with 3 GiB of memory and one GPU."""
    name = f"small-{namespace}"
    cluster.nodes.add(name, {"memory": "3Gi", GPU: "1"}, labels={"test.corral.dev/for": namespace})
    yield name
    cluster.nodes.remove(name)


def add(corral: Installation, name: str, *, requests: dict[str, str] | None = None, **spec: object) -> None:
    """Add a Model whose runners require the test's node."""
    pod: dict[str, object] = {
        "annotations": {ANNOTATION: "process"},
        "env": [{"name": "CORRAL_THREADS", "value": "1"}],
        "nodeSelector": {"test.corral.dev/for": corral.namespace},
        "resources": {"requests": requests or {}},
    }
    corral.add(name, pod=pod, **spec)


def test_an_idle_model_is_evicted_on_a_node_with_memory_for_one(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "one", requests=MEMORY)
    add(corral, "two", requests=MEMORY)
    for name, other in (("one", "two"), ("two", "one"), ("one", "two")):
        assert corral.send(gateway, name).result(START_TIMEOUT).done is not None
        assert (corral.replicas(name), corral.replicas(other)) == (1, 0)
        assert [at(pod, "spec", "nodeName") for pod in corral.pods(name)] == [node]


def test_an_idle_model_is_evicted_on_a_node_with_one_gpu(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "one", gpu={"count": 1, "resource": GPU})
    add(corral, "two", gpu={"count": 1, "resource": GPU})
    for name, other in (("one", "two"), ("two", "one")):
        assert corral.send(gateway, name).result(START_TIMEOUT).done is not None
        assert (corral.replicas(name), corral.replicas(other)) == (1, 0)


def test_a_busy_victim_completes_its_response_before_its_memory_is_freed(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "busy", requests=MEMORY)
    add(corral, "next", requests=MEMORY)
    first, running = corral.stream(gateway, "busy", tokens=LONG)
    second = corral.send(gateway, "next")
    until(
        lambda: corral.phase("busy") == "Draining",
        15,
        what="the phase Draining of the busy one",
        interval=POLL_INTERVAL / 2,
    )
    corral.wait_phase("next", "WaitingForCapacity", 15)
    assert corral.pods("next") == [], "no pod is created that could not be scheduled"
    done = first.result(START_TIMEOUT).done
    assert done is not None
    assert done.eval_count == LONG
    assert running.chunks >= LONG
    assert second.result(START_TIMEOUT).done is not None


def test_both_models_stay_loaded_on_a_node_with_memory_for_two(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    for name in ("one", "two"):
        add(corral, name, requests={"memory": "1Gi"})
        assert corral.send(gateway, name).result(START_TIMEOUT).done is not None
    assert (corral.replicas("one"), corral.replicas("two")) == (1, 1)


def test_other_pods_count_and_are_not_evicted(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    _add_other_pod(corral, node)
    add(corral, "late", requests=MEMORY)
    waiting = corral.send(gateway, "late")
    corral.wait_phase("late", "WaitingForCapacity", 30)
    assert "the most that is free is 1 GiB memory" in str(condition(corral.model("late"), "Scheduled")["message"])
    corral.cluster.api.delete(f"/api/v1/namespaces/{corral.namespace}/pods/other", gracePeriodSeconds=0)
    assert waiting.result(START_TIMEOUT).done is not None


def test_a_model_that_fits_no_node_fails_with_the_numbers_until_one_fits(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "huge", requests={"memory": "40Gi"})
    corral.wait_phase("huge", "Failed", 30)
    with gateway.client() as client, pytest.raises(ollama.ResponseError) as rejected:
        client.generate("huge", "hello")
    assert f"needs 40 GiB memory; the most that any node has is 3 GiB memory on {node}" in rejected.value.error
    assert corral.pods("huge") == []
    corral.edit("huge", pod={"resources": {"requests": MEMORY}})
    corral.wait_phase("huge", "Idle", 30)
    assert corral.send(gateway, "huge").result(START_TIMEOUT).done is not None


@pytest.fixture
def tiny_node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """Add a node for the test alone, with 500 MiB of memory: enough for one slot, by the estimate, and not for four."""
    name = f"tiny-{namespace}"
    cluster.nodes.add(name, {"memory": "500Mi"}, labels={"test.corral.dev/for": namespace})
    yield name
    cluster.nodes.remove(name)


def test_a_runner_gets_one_slot_if_no_node_has_memory_for_four(corral: Installation, tiny_node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "small", contextLength=4096, parallel="auto")
    assert corral.send(gateway, "small").result(START_TIMEOUT).done is not None
    assert [at(pod, "spec", "nodeName") for pod in corral.pods("small")] == [tiny_node]
    assert at(corral.model("small"), "status", "placement", "parallel") == 1


def _add_other_pod(corral: Installation, node: str) -> None:
    """Create a pod of another owner that requests 2 GiB."""
    container = {"name": "any", "image": "any", "resources": {"requests": {"memory": "2Gi"}}}
    spec = {"containers": [container], "nodeSelector": {"test.corral.dev/for": corral.namespace}}
    path = f"/api/v1/namespaces/{corral.namespace}/pods"
    corral.cluster.api.create(path, {"metadata": {"name": "other"}, "spec": spec})
    what = "a node for the other"
    until(
        lambda: at(corral.cluster.api.get(f"{path}/other"), "spec", "nodeName") == node,
        30,
        what=what,
        interval=POLL_INTERVAL,
    )
