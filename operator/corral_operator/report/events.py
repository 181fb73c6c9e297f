"""Kubernetes Events of a Model: the decisions about it and their reasons, as in ``kubectl describe model``.

Pure functions of the view and of the status before and after: each change is an Event once, also after a restart of the
operator. ``event_recorder`` writes them.

- Each change of phase has the phase as its reason; an unload for another Model has the reason Evicted instead.
- Other Events say what a phase does not: the GPUs that were chosen, the next attempt after a failure, a new version of
  a source, the Model for which another one is unloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.base.quantities import format_bytes
from corral_core.contracts.eviction import LOADED
from corral_operator.report.condition import condition_in
from corral_operator.report.conditions import NAMES_ACCEPTED
from corral_operator.report.pulls import PULLED, RESOLVE_FAILED, UPDATE_FAILED, pull_failure
from corral_operator.report.readiness import READY
from corral_operator.report.view import ModelView

GPU_FAILED = "GPUFailed"
"""Reason of the Event, and of the condition Ready, when a runner reports that its GPU has failed."""

EVICTED, PLACEMENT_CHOSEN, NAME_CONFLICT = "Evicted", "PlacementChosen", "NameConflict"

_WARNINGS = frozenset({"Failed", "Degraded", "WaitingForCapacity", UPDATE_FAILED, RESOLVE_FAILED, GPU_FAILED})


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """``reason`` is CamelCase, ``message`` is for people. A ``warning`` says that something should be changed."""

    reason: str
    message: str
    warning: bool = False


def model_events(view: ModelView, status: JsonObject) -> list[ModelEvent]:
    """Return the Events for the change from the Model's present status to the next one, in order."""
    return [*_names(view, status), *_pull(view, status), *_placement(view, status), *_phase(view, status)]


def device_event(message: str) -> ModelEvent:
    """Return the Event for a runner whose GPU has failed."""
    return ModelEvent(GPU_FAILED, message, warning=True)


def internal_error_event(message: str) -> ModelEvent:
    """Return the Event for a Model that the operator cannot process."""
    return ModelEvent("InternalError", message, warning=True)


def _phase(view: ModelView, status: JsonObject) -> Iterator[ModelEvent]:
    before, after = get_str(view.item.status, "phase"), get_str(status, "phase")
    if before != after:
        evicted = after == "Draining" and view.decision is not None and view.decision.evicted_for
        reason = EVICTED if evicted else after
        yield ModelEvent(reason, _phase_message(view, status, after), warning=reason in _WARNINGS)
        return
    failure = _failure(view)
    if failure and failure[0] != get_str(condition_in(view.item.status, READY), "reason"):
        yield ModelEvent(*failure, warning=True)
    elif after == "WaitingForCapacity" and _message(view.item.status, READY) != _message(status, READY):
        yield ModelEvent(after, _message(status, READY), warning=True)


def _phase_message(view: ModelView, status: JsonObject, phase: str) -> str:
    """Return the message of the condition Ready, with what the decision adds to it."""
    decision, message = view.decision, _message(status, READY)
    reason = decision.reason if decision is not None else ""
    if phase == "Draining":
        return reason
    if phase == "Loading":
        node = f" on {decision.placement}" if decision is not None and decision.placement else ""
        return f"{reason}{node}; {message}" if reason else message
    return _message(status, LOADED) if phase == "Ready" else message


def _failure(view: ModelView) -> tuple[str, str] | None:
    """Return why a load or a pull fails at present, although it is tried again."""
    failure = view.failure if view.decision is not None and view.decision.replicas else None
    if view.unpulled and view.pull is not None:
        failure = pull_failure(view.pull)
    return (failure.reason, failure.message) if failure is not None else None


def _pull(view: ModelView, status: JsonObject) -> Iterator[ModelEvent]:
    """Yield the Event for sources that have been pulled, or for news about a later version of them."""
    before, after = condition_in(view.item.status, PULLED), condition_in(status, PULLED)
    reason, message = get_str(after, "reason"), get_str(after, "message")
    if get_str(after, "status") != "True":
        return
    if reason == PULLED:
        same = get_object(view.item.status, "source", "snapshots") == get_object(status, "source", "snapshots")
        known = get_str(before, "status") == "True" and same
    else:
        known = reason == get_str(before, "reason")
    if not known:
        yield ModelEvent(reason, message, warning=reason in _WARNINGS)


def _placement(view: ModelView, status: JsonObject) -> Iterator[ModelEvent]:
    """Yield the Event for GPUs, or for none, that were chosen for the runners."""
    before, after = get_object(view.item.status, "placement"), get_object(status, "placement")
    if view.estimate is None or "gpus" not in after:
        return
    if any(before.get(name) != after.get(name) for name in ("gpus", "resource")):
        gpus = view.load.gpus
        where = f"{gpus.count} {gpus.resource}" if gpus is not None else "the CPU"
        why = f": {view.load.why}" if view.load.why else ""
        memory = format_bytes(view.estimate.total)
        yield ModelEvent(PLACEMENT_CHOSEN, f"a runner gets {where} and about {memory} of host memory{why}")


def _names(view: ModelView, status: JsonObject) -> Iterator[ModelEvent]:
    before, after = condition_in(view.item.status, NAMES_ACCEPTED), condition_in(status, NAMES_ACCEPTED)
    if get_str(after, "status") == "False" and get_str(before, "message") != get_str(after, "message"):
        yield ModelEvent(NAME_CONFLICT, get_str(after, "message"), warning=True)


def _message(status: JsonObject, kind: str) -> str:
    return get_str(condition_in(status, kind), "message")
