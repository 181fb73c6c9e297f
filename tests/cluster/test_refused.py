"""Pods that the API server does not let be made: the Model says why, and comes when there is nothing against it."""

from __future__ import annotations

import ollama
import pytest

from tests.cluster.api import condition
from tests.cluster.processes import WAKE, Installation

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_a_runtime_class_that_is_missing_is_named_to_who_waits_and_heals(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    name = f"gpus-{corral.namespace}"
    corral.add("tiny", runtimeClassName=name)
    corral.wait_phase("tiny", "Idle")
    with pytest.raises(ollama.ResponseError, match=f'no RuntimeClass "{name}"'):
        corral.ask(gateway, "tiny").result(WAKE)
    classes = "/apis/node.k8s.io/v1/runtimeclasses"
    corral.cluster.api.create(classes, {"metadata": {"name": name}, "handler": "x"})
    try:
        corral.wait_phase("tiny", "Idle", 60)  # nobody waits any more
        answer = corral.ask(gateway, "tiny").result(WAKE)
        assert answer.done is not None
    finally:
        corral.cluster.api.delete(f"{classes}/{name}")


def test_a_priority_class_that_is_missing_is_named_on_the_model_and_heals(corral: Installation) -> None:
    name = f"runners-{corral.namespace}"
    corral.start_operator(CORRAL_RUNNER_PRIORITY_CLASS=name)
    corral.add("tiny", minReplicas=1)
    corral.wait_phase("tiny", "Failed", 60)
    ready = condition(corral.model("tiny"), "Ready")
    assert ready["reason"] == "PodRefused"
    assert name in str(ready["message"])
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    corral.cluster.api.create(classes, {"metadata": {"name": name}, "value": 0})
    try:
        corral.wait_phase("tiny", "Ready")
    finally:
        corral.cluster.api.delete(f"{classes}/{name}")
