"""Events on a Model: its changes of phase, as ``kubectl describe`` tells them. For people only."""

from __future__ import annotations

from corral_core.jsonfields import Json, objects, text
from corral_core.model import API_VERSION, KIND
from corral_core.timestamps import format_seconds
from corral_operator.config import FIELD_MANAGER
from corral_operator.objects import ModelObject

_WARNINGS = frozenset({"Failed", "WaitingForCapacity"})


def phase_event(item: ModelObject, status: Json, now: float, *, decided: str = "") -> Json:
    """The Event for a Model whose status has just got another phase; the last condition says why.

    Only that of a start does not: it says what the runner does, and ``decided`` why it was started.
    """
    phase = text(status, "phase")
    conditions = objects(status, "conditions")
    message = text(conditions[-1], "message") if conditions else ""
    if phase == "Loading" and decided:
        message = f"{decided}; {message}"
    moment = format_seconds(now)
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
        "type": "Warning" if phase in _WARNINGS else "Normal",
        "reason": phase,
        "message": message[:1024],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
