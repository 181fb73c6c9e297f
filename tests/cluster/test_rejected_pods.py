"""Pods that the API server rejects: the Model reports the reason and recovers without an edit."""

from __future__ import annotations

import ollama
import pytest

from tests.cluster.api import condition
from tests.cluster.installation import START_TIMEOUT, Installation

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_a_missing_runtime_class_is_reported_to_the_client_until_it_exists(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    name = f"gpus-{corral.namespace}"
    corral.add("tiny", runtimeClassName=name)
    corral.wait_phase("tiny", "Idle")
    with pytest.raises(ollama.ResponseError, match=f'no RuntimeClass "{name}"'):
        corral.send(gateway, "tiny").result(START_TIMEOUT)
    classes = "/apis/node.k8s.io/v1/runtimeclasses"
    corral.cluster.api.create(classes, {"metadata": {"name": name}, "handler": "x"})
    try:
        corral.wait_phase("tiny", "Idle", 60)  # no request is pending any more
        response = corral.send(gateway, "tiny").result(START_TIMEOUT)
        assert response.done is not None
    finally:
        corral.cluster.api.delete(f"{classes}/{name}")


def test_a_missing_priority_class_is_reported_in_the_status_until_it_exists(corral: Installation) -> None:
    name = f"runners-{corral.namespace}"
    corral.start_operator(CORRAL_RUNNER_PRIORITY_CLASS=name)
    corral.add("tiny", minReplicas=1)
    corral.wait_phase("tiny", "Failed", 60)
    ready = condition(corral.model("tiny"), "Ready")
    assert ready["reason"] == "PodRejected"
    assert name in str(ready["message"])
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    corral.cluster.api.create(classes, {"metadata": {"name": name}, "value": 0})
    try:
        corral.wait_phase("tiny", "Ready")
    finally:
        corral.cluster.api.delete(f"{classes}/{name}")
