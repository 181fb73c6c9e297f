"""Room on a node: what the planner decides from nodes and pods, and what a real scheduler makes of it."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
import pytest

from tests.cluster.api import at, condition
from tests.cluster.cluster import Cluster
from tests.cluster.processes import LOOK, WAKE, Installation
from tests.cluster.standin import ANNOTATION
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
LONG = 400
"""Tokens of an answer that takes seconds."""

MEMORY = {"memory": "2Gi"}
"""Of a node with 3 GiB: there is room for one such Model."""

GPU = "example.com/gpu"


@pytest.fixture
def node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A node for the test alone, with 3 GiB of memory and one GPU."""
    name = f"small-{namespace}"
    cluster.nodes.add(name, {"memory": "3Gi", GPU: "1"}, labels={"test.corral.dev/for": namespace})
    yield name
    cluster.nodes.remove(name)


def add(corral: Installation, name: str, *, requests: dict[str, str] | None = None, **spec: object) -> None:
    """A Model whose runners go to the test's node."""
    pod: dict[str, object] = {
        "annotations": {ANNOTATION: "process"},
        "env": [{"name": "CORRAL_THREADS", "value": "1"}],
        "nodeSelector": {"test.corral.dev/for": corral.namespace},
        "resources": {"requests": requests or {}},
    }
    corral.add(name, pod=pod, **spec)


def test_the_idle_model_leaves_and_the_waiting_one_comes_where_memory_is_for_one(
    corral: Installation, node: str
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "one", requests=MEMORY)
    add(corral, "two", requests=MEMORY)
    for name, other in (("one", "two"), ("two", "one"), ("one", "two")):
        assert corral.ask(gateway, name).result(WAKE).done is not None
        assert (corral.replicas(name), corral.replicas(other)) == (1, 0)
        assert [at(pod, "spec", "nodeName") for pod in corral.pods(name)] == [node]


def test_the_idle_model_leaves_and_the_waiting_one_comes_where_there_is_one_gpu(
    corral: Installation, node: str
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "one", gpu={"count": 1, "resource": GPU})
    add(corral, "two", gpu={"count": 1, "resource": GPU})
    for name, other in (("one", "two"), ("two", "one")):
        assert corral.ask(gateway, name).result(WAKE).done is not None
        assert (corral.replicas(name), corral.replicas(other)) == (1, 0)


def test_a_busy_model_ends_its_answer_before_the_other_one_gets_its_memory(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "busy", requests=MEMORY)
    add(corral, "next", requests=MEMORY)
    first, running = corral.ask_long(gateway, "busy", tokens=LONG)
    second = corral.ask(gateway, "next")
    until(lambda: corral.phase("busy") == "Draining", 15, what="that the busy one drains", interval=LOOK / 2)
    corral.wait_phase("next", "WaitingForCapacity", 15)
    assert corral.pods("next") == [], "nothing is made that would only wait for a node"
    done = first.result(WAKE).done
    assert done is not None
    assert done.eval_count == LONG
    assert running.chunks >= LONG
    assert second.result(WAKE).done is not None


def test_both_models_stay_where_there_is_memory_for_two(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    for name in ("one", "two"):
        add(corral, name, requests={"memory": "1Gi"})
        assert corral.ask(gateway, name).result(WAKE).done is not None
    assert (corral.replicas("one"), corral.replicas("two")) == (1, 1)


def test_other_peoples_pods_count_and_are_left_alone(corral: Installation, node: str) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    _stranger(corral, node)
    add(corral, "late", requests=MEMORY)
    waiting = corral.ask(gateway, "late")
    corral.wait_phase("late", "WaitingForCapacity", 30)
    assert "the most that is free is 1 GiB memory" in str(condition(corral.model("late"), "Scheduled")["message"])
    corral.cluster.api.delete(f"/api/v1/namespaces/{corral.namespace}/pods/stranger", gracePeriodSeconds=0)
    assert waiting.result(WAKE).done is not None


def test_a_model_that_no_node_can_hold_fails_at_once_with_the_numbers_until_one_can(
    corral: Installation, node: str
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "huge", requests={"memory": "40Gi"})
    corral.wait_phase("huge", "Failed", 30)
    with gateway.client() as client, pytest.raises(ollama.ResponseError) as told:
        client.generate("huge", "hello")
    assert f"needs 40 GiB memory; the most that any node has is 3 GiB memory on {node}" in told.value.error
    assert corral.pods("huge") == []
    corral.edit("huge", pod={"resources": {"requests": MEMORY}})
    corral.wait_phase("huge", "Idle", 30)
    assert corral.ask(gateway, "huge").result(WAKE).done is not None


@pytest.fixture
def tiny_node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A node for the test alone, with 400 MiB of memory: by the estimate four requests at once take 596, one 324."""
    name = f"tiny-{namespace}"
    cluster.nodes.add(name, {"memory": "400Mi"}, labels={"test.corral.dev/for": namespace})
    yield name
    cluster.nodes.remove(name)


def test_one_request_at_once_is_served_where_no_node_has_the_memory_for_four(
    corral: Installation, tiny_node: str
) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    add(corral, "small", contextLength=4096, parallel="auto")
    assert corral.ask(gateway, "small").result(WAKE).done is not None
    assert [at(pod, "spec", "nodeName") for pod in corral.pods("small")] == [tiny_node]
    assert at(corral.model("small"), "status", "placement", "parallel") == 1


def _stranger(corral: Installation, node: str) -> None:
    """A pod of other people that takes 2 GiB."""
    container = {"name": "any", "image": "any", "resources": {"requests": {"memory": "2Gi"}}}
    spec = {"containers": [container], "nodeSelector": {"test.corral.dev/for": corral.namespace}}
    path = f"/api/v1/namespaces/{corral.namespace}/pods"
    corral.cluster.api.create(path, {"metadata": {"name": "stranger"}, "spec": spec})
    what = "a node for the stranger"
    until(
        lambda: at(corral.cluster.api.get(f"{path}/stranger"), "spec", "nodeName") == node, 30, what=what, interval=LOOK
    )
