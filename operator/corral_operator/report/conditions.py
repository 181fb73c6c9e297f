"""Phase and conditions of a Model: pure functions of its view.

Conditions follow the Kubernetes API conventions
(https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md). The
message of a condition that is False says what the Model waits for or what to change.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.base.json_fields import get_objects, get_str
from corral_core.base.timestamps import format_time
from corral_core.contracts.eviction import EVICTION_TIMEOUT
from corral_core.model.name_index import lost_names_message
from corral_operator.observe.objects import ModelObject
from corral_operator.report.placement import ACCELERATED, acceleration, slowed
from corral_operator.report.pod_failure_messages import inspector_failure
from corral_operator.report.pulls import pull_phase, pull_state
from corral_operator.report.view import ModelView

_EVICTED = (
    "another model needs the capacity, and the runners were ended because their requests did not finish within "
    "CORRAL_EVICTION_TIMEOUT, or because their load made no progress for OLLAMA_LOAD_TIMEOUT"
)


RECONCILED = "Reconciled"
"""Type of a condition that a Model only has while the operator cannot process it."""


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    true: bool
    reason: str
    message: str

    def to_json(self, item: ModelObject, now: float) -> dict[str, object]:
        """Return the API's form; ``lastTransitionTime`` stays while the condition's status stays."""
        known = get_objects(item.status, "conditions")
        old = next((each for each in known if get_str(each, "type") == self.type), {})
        status = "True" if self.true else "False"
        same = get_str(old, "status") == status and get_str(old, "lastTransitionTime")
        return {
            "type": self.type,
            "status": status,
            "reason": self.reason,
            "message": self.message[:32768],
            "observedGeneration": item.meta.generation,
            "lastTransitionTime": get_str(old, "lastTransitionTime") if same else format_time(now),
        }


def conditions(view: ModelView) -> list[Condition]:
    """Return Accepted, and for a Model that is accepted NamesAccepted, Inspected, Scheduled and Ready as well.

    Pulled is only that of a Model with remote sources, Accelerated that of one that gets GPUs.
    """
    accepted = _accepted(view)
    if not accepted.true:
        return [accepted]
    pulled = [Condition("Pulled", *pull_state(view.pull))] if view.pull is not None else []
    state = acceleration(view)
    accelerated = [Condition(ACCELERATED, *state)] if state is not None else []
    return [
        accepted,
        _names_accepted(view),
        _inspected(view),
        *pulled,
        _scheduled(view),
        *accelerated,
        _ready(view),
    ]


def not_reconciled(error: str) -> Condition:
    """Return the condition of a Model whose reconciliation fails with an error of the operator itself."""
    advice = "the operator cannot process this Model and tries again; its replicas stay as they are"
    return Condition(RECONCILED, False, "InternalError", f"{advice}: {error[:1000]}")


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
        return Condition("NamesAccepted", False, "NameConflict", f"{lost_names_message(view.lost_names)}; {reached}")
    return Condition("NamesAccepted", True, "NoConflicts", reached)


def _inspected(view: ModelView) -> Condition:
    """Whether the metadata of the weights, and with it the memory of a runner, is known."""
    if view.metadata is not None:
        metadata = view.metadata
        known = f"{metadata.parameter_size} {metadata.family}, {metadata.quantization_level}"
        memory = f"; a runner needs about {view.estimate}" if view.estimate else ""
        left_out = (
            f"; too long for the report, and not in /api/show: {', '.join(metadata.left_out)}"
            if metadata.left_out
            else ""
        )
        return Condition("Inspected", True, "Completed", known + memory + left_out)
    if view.inspector is None and view.rejected_pod is not None:
        return Condition("Inspected", False, view.rejected_pod.reason, view.rejected_pod.message)
    if view.inspector is None:
        return Condition("Inspected", False, "Pending", "the header of the weights must be read before the first start")
    failure = inspector_failure(view.inspector)
    if failure is not None:
        return Condition("Inspected", False, failure.reason, failure.message)
    return Condition("Inspected", False, "Running", "an inspector pod reads the header of the weights")


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


def _ready(view: ModelView) -> Condition:
    decision, current = view.decision, phase(view)
    if decision is not None and decision.interrupt:
        return Condition("Ready", False, EVICTION_TIMEOUT, _EVICTED)
    if view.uninspected and view.rejected_object is None and decision is not None and decision.failure is None:
        inspected = _inspected(view)
        return Condition("Ready", False, inspected.reason, inspected.message)
    if view.unpulled and view.pull is not None and decision is not None and decision.failure is None:
        _, reason, message = pull_state(view.pull)
        return Condition("Ready", False, reason, message)
    slow = slowed(view)
    if slow is not None and current == "Degraded":
        return Condition("Ready", False, "NotAccelerated", slow[2])
    failure = view.failure
    wanted = decision is not None and decision.replicas > 0
    if failure is not None and (wanted or failure is view.rejected_object):
        return Condition("Ready", False, failure.reason, failure.message)
    if current == "Ready":
        return Condition("Ready", True, "Ready", f"{view.ready} of {len(view.staying)} runners are ready")
    if current == "Pulling" and view.pull is not None:
        _, reason, message = pull_state(view.pull)
        return Condition("Ready", False, reason, message)
    if current == "Loading":
        return Condition("Ready", False, "Loading", "a runner starts or loads the weights")
    return Condition("Ready", False, current, decision.reason if decision is not None else "")
