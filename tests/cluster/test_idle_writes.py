"""No needless writes: traffic of loaded models and a restarted operator write nothing to the API server."""

from __future__ import annotations

import pytest

from tests.cluster.api import Object, at, condition
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_requests_to_a_loaded_model_write_nothing(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("warm")
    corral.send(gateway, "warm").result(START_TIMEOUT)
    until(lambda: _reported(corral.model("warm")), 30, what="the usage in the status", interval=POLL_INTERVAL)
    before = _versions(corral, "warm")
    for _ in range(20):
        corral.send(gateway, "warm", tokens=2).result(START_TIMEOUT)
    assert _versions(corral, "warm") == before


def test_a_restarted_operator_writes_nothing_if_nothing_differs(corral: Installation) -> None:
    first = corral.start_operator("first")
    names = [f"settled-{number}" for number in range(3)]
    for name in names:
        corral.add(name)
    until(lambda: all(_settled(corral, name) for name in names), 30, what="settled Models", interval=POLL_INTERVAL)
    before = [_versions(corral, name) for name in names]
    assert first.stop() == 0
    corral.start_operator("second")
    corral.add("new")
    corral.wait_phase("new", "Idle")
    assert [_versions(corral, name) for name in names] == before


def _reported(model: Object) -> bool:
    """Return whether the status has when the Model is unloaded, and that no request is pending any more."""
    return bool(at(model, "status", "expiresAt")) and at(model, "status", "pending") == 0


def _versions(corral: Installation, model: str) -> list[object]:
    """Return the resource versions of the Model and its objects."""
    service = corral.cluster.api.get(f"/api/v1/namespaces/{corral.namespace}/services/model-{model}")
    return [
        at(item, "metadata", "resourceVersion") for item in (corral.model(model), corral.deployment(model), service)
    ]


def _settled(corral: Installation, model: str) -> bool:
    """Return whether operator and Deployment controller have written their status of the Model at zero replicas."""
    if corral.phase(model) != "Idle":
        return False
    deployment = corral.deployment(model)
    seen = at(deployment, "status", "observedGeneration")
    conditions = at(deployment, "status", "conditions")
    return seen == at(deployment, "metadata", "generation") and bool(conditions)


def test_a_service_of_another_owner_is_not_changed_and_the_model_fails(corral: Installation) -> None:
    path = f"/api/v1/namespaces/{corral.namespace}/services"
    spec = {"selector": {"app": "other"}, "ports": [{"name": "http", "port": 80}]}
    other = corral.cluster.api.create(path, {"metadata": {"name": "model-meeting"}, "spec": spec})
    corral.start_operator()
    corral.add("meeting")
    corral.wait_phase("meeting", "Failed", 20)
    assert "model-meeting" in str(condition(corral.model("meeting"), "Accepted").get("message"))
    assert corral.cluster.api.get(f"{path}/model-meeting") == other
