"""Conditions of a Model: pure functions of its view."""

from __future__ import annotations

from corral_core.model.name_index import lost_names_message
from corral_operator.report.condition import Condition
from corral_operator.report.inspected import inspected
from corral_operator.report.placement import ACCELERATED, acceleration
from corral_operator.report.pulls import PULLED, pull_state
from corral_operator.report.readiness import STALLED, not_accepted, readiness
from corral_operator.report.view import ModelView

NAMES_ACCEPTED = "NamesAccepted"


def conditions(view: ModelView) -> list[Condition]:
    """Return Accepted, NamesAccepted, Inspected, Scheduled, Loaded and Ready; of a rejected Model Accepted and Ready.

    Pulled is only that of a Model with remote sources, Accelerated that of one that gets GPUs. Reconciling and Stalled
    are returned only while they hold.
    """
    accepted = _accepted(view)
    if not accepted.true:
        return [accepted, *not_accepted(accepted.reason, accepted.message)]
    pulled = [Condition(PULLED, *pull_state(view.pull))] if view.pull is not None else []
    state = acceleration(view)
    accelerated = [Condition(ACCELERATED, *state)] if state is not None else []
    return [
        accepted,
        _names_accepted(view),
        inspected(view),
        *pulled,
        _scheduled(view),
        *accelerated,
        *readiness(view),
    ]


def not_reconciled(error: str) -> Condition:
    """Return the condition of a Model whose reconciliation fails with an error of the operator itself."""
    advice = "the operator cannot process this Model and tries again; its replicas stay as they are"
    return Condition(STALLED, True, "InternalError", f"{advice}: {error[:1000]}")


def _accepted(view: ModelView) -> Condition:
    if view.item.model is None:
        problems = "; ".join(str(problem) for problem in view.item.problems)
        return Condition("Accepted", False, "Invalid", problems)
    if view.rejection is not None:
        return Condition("Accepted", False, "NameConflict", view.rejection)
    return Condition("Accepted", True, "Valid", "the Model is valid")


def _names_accepted(view: ModelView) -> Condition:
    """Whether clients reach the Model by all names of its spec."""
    reached = f"clients reach this Model as {', '.join(view.names)}"
    if view.lost_names:
        return Condition(NAMES_ACCEPTED, False, "NameConflict", f"{lost_names_message(view.lost_names)}; {reached}")
    return Condition(NAMES_ACCEPTED, True, "NoConflicts", reached)


def _scheduled(view: ModelView) -> Condition:
    decision = view.decision
    if decision is not None and decision.failure is not None:
        why = f"; {view.load.why}" if view.load.gpus is not None and view.load.why else ""
        return Condition("Scheduled", False, "NoSuitableNode", f"{decision.failure}{why}")
    if decision is not None and decision.waiting_for_capacity:
        return Condition("Scheduled", False, "WaitingForCapacity", decision.reason)
    rejected = view.rejected_object or view.rejected_pod
    if rejected is not None:
        return Condition("Scheduled", False, rejected.reason, rejected.message)
    if not view.staying:
        return Condition("Scheduled", False, "NoReplicas", decision.reason if decision else "")
    if all(pod.scheduled for pod in view.staying):
        return Condition("Scheduled", True, "Scheduled", "every runner has a node")
    failure = view.failure
    if failure is not None and failure.phase == "WaitingForCapacity":
        return Condition("Scheduled", False, failure.reason, failure.message)
    return Condition("Scheduled", False, "Pending", "a runner has no node yet")
