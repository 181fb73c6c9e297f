"""State of a Model for people, from its status and EndpointSlices."""

from __future__ import annotations

import pytest

from corral_core.base.json_fields import JsonObject, get_object
from corral_server.gateway.directory.directory import ObservedState
from corral_server.gateway.directory.kubernetes_entries import model_of
from corral_server.gateway.directory.kubernetes_state import observed_state
from tests.gateway.kube_objects import endpoint, endpoint_slice, model


def observed(status: dict[str, object], *slices: JsonObject) -> ObservedState:
    raw = model(status=status)
    parsed = model_of(raw)
    assert parsed is not None
    return observed_state(parsed, get_object(raw, "status"), slices)


def condition(kind: str, status: str, message: str) -> dict[str, object]:
    return {"type": kind, "status": status, "message": message}


def test_a_model_that_the_operator_has_not_seen_is_pending() -> None:
    assert observed({}) == ObservedState("Pending", "", namespace="lab")


def test_replicas_gpus_and_nodes_are_those_of_the_runners() -> None:
    slices = endpoint_slice(
        {**endpoint("10.0.0.1"), "nodeName": "b"},
        {**endpoint("10.0.0.2"), "nodeName": "a"},
        {**endpoint("10.0.0.3", ready=False), "nodeName": "c"},
        endpoint("10.0.0.4"),
    )
    state = observed({"phase": "Ready", "replicas": 3, "readyReplicas": 2, "placement": {"gpus": 2}}, slices)
    assert (state.replicas, state.ready, state.gpus, state.nodes) == (3, 2, 6, ("a", "b"))


@pytest.mark.parametrize(
    ("phase", "conditions", "reason"),
    [
        ("Ready", [condition("Ready", "True", "1 of 1 runners are ready")], "1 of 1 runners are ready"),
        ("Failed", [condition("Accepted", "False", "no such field")], "no such field"),
        ("Failed", [condition("Ready", "False", "failed"), condition("Stalled", "True", "not a GGUF")], "not a GGUF"),
        ("Loading", [condition("Ready", "True", "idle"), condition("Loaded", "False", "it loads")], "it loads"),
        ("Degraded", [condition("Accelerated", "False", "on the CPU"), condition("Ready", "True", "r")], "on the CPU"),
        ("Ready", [condition("Accelerated", "True", "all layers"), condition("Ready", "True", "ready")], "ready"),
    ],
)
def test_the_reason_is_the_message_of_the_condition_that_explains_the_phase(
    phase: str, conditions: list[dict[str, object]], reason: str
) -> None:
    assert observed({"phase": phase, "conditions": conditions}).reason == reason
