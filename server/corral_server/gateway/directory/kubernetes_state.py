"""State of a Model for people, from the status of the object and its EndpointSlices: pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from corral_core.base.json_fields import JsonObject, get_int, get_object, get_objects, get_str
from corral_core.model.model import Model
from corral_server.gateway.directory.directory import ObservedState


def observed_state(model: Model, status: JsonObject, slices: Iterable[JsonObject]) -> ObservedState:
    """Return the state. A Model without a status is pending: the operator has not seen it."""
    phase = get_str(status, "phase") or "Pending"
    replicas, gpus = max(0, get_int(status, "replicas")), get_object(status, "placement").get("gpus")
    return ObservedState(
        phase=phase,
        reason=_reason(status, phase),
        namespace=model.namespace,
        replicas=replicas,
        ready=max(0, get_int(status, "readyReplicas")),
        gpus=replicas * gpus if isinstance(gpus, int) and gpus >= 0 else None,
        nodes=_nodes(slices),
    )


def _reason(status: JsonObject, phase: str) -> str:
    """Return the message of the condition that explains the phase, empty if there is none."""
    conditions = {get_str(item, "type"): item for item in get_objects(status, "conditions")}
    false = [name for name in ("Loaded", "Ready") if get_str(conditions.get(name, {}), "status") == "False"]
    slow = ["Accelerated"] if phase == "Degraded" else []
    messages = (
        get_str(conditions.get(name, {}), "message") for name in ("Stalled", *slow, *false, "Ready", "Accepted")
    )
    return next(filter(None, messages), "")


def _nodes(slices: Iterable[JsonObject]) -> tuple[str, ...]:
    names = set()
    for slice_ in slices:
        for endpoint in get_objects(slice_, "endpoints"):
            if get_object(endpoint, "conditions").get("ready") is True:
                names.add(get_str(endpoint, "nodeName"))
    return tuple(sorted(names - {""}))
