"""Kubernetes Events on a Model: its phase changes, pulls and new versions, failed GPUs, as in ``kubectl describe``."""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str
from corral_core.base.timestamps import format_time
from corral_core.model.model import API_VERSION, KIND
from corral_operator.config import FIELD_MANAGER
from corral_operator.observe.objects import ModelObject
from corral_operator.report.pulls import PULLED, RESOLVE_FAILED, UPDATE_FAILED

GPU_FAILED = "GPUFailed"
"""Reason of the Event, and of the condition Ready, when a runner reports that its GPU has failed."""

_WARNINGS = frozenset({"Failed", "WaitingForCapacity", UPDATE_FAILED, RESOLVE_FAILED, GPU_FAILED})


def phase_event(item: ModelObject, status: JsonObject, now: float, *, decision_reason: str) -> JsonObject:
    """Return the Event for a Model whose phase has changed; its message is that of the last condition.

    The message for the phase Loading begins with the reason of the planner's decision, which the condition lacks.
    """
    phase = get_str(status, "phase")
    conditions = get_objects(status, "conditions")
    message = get_str(conditions[-1], "message") if conditions else ""
    if phase == "Loading" and decision_reason:
        message = f"{decision_reason}; {message}"
    return _event(item, phase, message, now)


def pull_event(item: ModelObject, status: JsonObject, now: float) -> JsonObject | None:
    """Return the Event for sources that have been pulled, or for news about a later version of them; None without."""
    before, after = _condition(item.status), _condition(status)
    if get_str(after, "status") != "True":
        return None
    reason = get_str(after, "reason")
    if reason != PULLED:
        return _event(item, reason, get_str(after, "message"), now) if reason != get_str(before, "reason") else None
    same = get_object(item.status, "source", "snapshots") == get_object(status, "source", "snapshots")
    if get_str(before, "status") == "True" and same:
        return None
    return _event(item, PULLED, get_str(after, "message"), now)


def device_event(item: ModelObject, message: str, now: float) -> JsonObject:
    """Return the Event for a runner whose GPU has failed."""
    return _event(item, GPU_FAILED, message, now)


def _condition(status: JsonObject) -> JsonObject:
    """Return the condition Pulled, empty if there is none."""
    return next((one for one in get_objects(status, "conditions") if get_str(one, "type") == PULLED), {})


def _event(item: ModelObject, reason: str, message: str, now: float) -> JsonObject:
    timestamp = format_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{item.name}.", "namespace": item.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": item.name,
            "namespace": item.namespace,
            "uid": item.meta.uid,
        },
        "type": "Warning" if reason in _WARNINGS else "Normal",
        "reason": reason,
        "message": message[:1024],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": timestamp,
        "lastTimestamp": timestamp,
        "count": 1,
    }
