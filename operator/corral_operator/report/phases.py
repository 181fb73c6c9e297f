"""Phase of a Model: a summary of its state for people, as a pure function of its view."""

from __future__ import annotations

from corral_operator.report.placement import slowed
from corral_operator.report.pod_failure_messages import inspector_failure
from corral_operator.report.pulls import pull_phase
from corral_operator.report.view import ModelView

PHASES = (
    "Pending",
    "Pulling",
    "Idle",
    "WaitingForCapacity",
    "Loading",
    "Ready",
    "Degraded",
    "Draining",
    "Suspended",
    "Failed",
)
"""All phases, as in the CRD."""


def phase(view: ModelView) -> str:
    decision, model = view.decision, view.item.model
    if decision is None or model is None or view.rejection is not None:
        return "Failed"
    if decision.failure is not None and not view.pods:
        return "Failed"
    if model.spec.suspend:
        return "Draining" if view.pods else "Suspended"
    if view.rejected_object is not None and view.rejected_object.phase == "Failed" and not view.pods:
        return "Failed"
    if view.uninspected:
        failure = inspector_failure(view.inspector) if view.inspector else view.rejected_pod
        return failure.phase if failure and failure.phase != "Loading" else "Pending"
    if view.unpulled and view.pull is not None:
        return pull_phase(view.pull)
    if view.pull is not None and view.pull.holds_start and not view.pods:
        return "Pulling"
    if decision.draining or (decision.replicas == 0 and view.pods and not decision.waiting_for_capacity):
        return "Draining"
    if decision.replicas == 0:
        return "WaitingForCapacity" if decision.waiting_for_capacity else "Idle"
    if view.ready:
        return "Degraded" if slowed(view) is not None else "Ready"
    if view.failure is not None and view.failure.phase != "Loading":
        return view.failure.phase
    return "Pulling" if view.pulling else "Loading"
