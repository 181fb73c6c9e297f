"""What is as it should be is not written again: warm traffic and a new operator leave the API server alone."""

from __future__ import annotations

import pytest

from tests.cluster.api import at, condition
from tests.cluster.processes import LOOK, WAKE, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_warm_traffic_writes_nothing_to_the_api_server(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("warm")
    corral.ask(gateway, "warm").result(WAKE)
    until(lambda: at(corral.model("warm"), "status", "expiresAt"), 15, what="status.expiresAt", interval=LOOK)
    before = _versions(corral, "warm")
    for _ in range(20):
        corral.ask(gateway, "warm", tokens=2).result(WAKE)
    assert _versions(corral, "warm") == before


def test_an_operator_that_is_started_anew_changes_nothing_that_is_well(corral: Installation) -> None:
    first = corral.start_operator("first")
    names = [f"well-{number}" for number in range(3)]
    for name in names:
        corral.add(name)
    until(lambda: all(_settled(corral, name) for name in names), 30, what="that all is settled", interval=LOOK)
    before = [_versions(corral, name) for name in names]
    assert first.stop() == 0
    corral.start_operator("second")
    corral.add("new")
    corral.wait_phase("new", "Idle")
    assert [_versions(corral, name) for name in names] == before


def _versions(corral: Installation, model: str) -> list[object]:
    """The resource versions of the Model and of what it owns."""
    service = corral.cluster.api.get(f"/api/v1/namespaces/{corral.namespace}/services/model-{model}")
    return [
        at(item, "metadata", "resourceVersion") for item in (corral.model(model), corral.deployment(model), service)
    ]


def _settled(corral: Installation, model: str) -> bool:
    """Whether operator and Deployment controller have said all that they have to say of the Model at zero."""
    if corral.phase(model) != "Idle":
        return False
    deployment = corral.deployment(model)
    seen = at(deployment, "status", "observedGeneration")
    conditions = at(deployment, "status", "conditions")
    return seen == at(deployment, "metadata", "generation") and bool(conditions)


def test_a_service_of_somebody_else_is_left_alone_and_the_model_says_so(corral: Installation) -> None:
    path = f"/api/v1/namespaces/{corral.namespace}/services"
    spec = {"selector": {"app": "theirs"}, "ports": [{"name": "http", "port": 80}]}
    theirs = corral.cluster.api.create(path, {"metadata": {"name": "model-meeting"}, "spec": spec})
    corral.start_operator()
    corral.add("meeting")
    corral.wait_phase("meeting", "Failed", 20)
    assert "model-meeting" in str(condition(corral.model("meeting"), "Accepted").get("message"))
    assert corral.cluster.api.get(f"{path}/model-meeting") == theirs
