"""Conditions Loaded, Ready, Reconciling and Stalled of a Model: pure functions of its view.

- ``Ready`` tells whether a request can be served when it comes. A Model at zero replicas is Ready; loads, waits for
  capacity and unloads, which requests cause, do not change it.
- ``Loaded`` tells whether a runner is ready now.
- ``Reconciling`` and ``Stalled`` follow kstatus
  (https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md): they are present only while they are
  True, and never both. Reconciling: the operator works towards what the spec asks for, without any request. Stalled:
  it cannot go on before something is changed.

The message of Ready, while it is False, says what the Model waits for or what to change.
"""

from __future__ import annotations

from corral_core.base.json_fields import get_int, get_str
from corral_core.contracts.eviction import EVICTION_TIMEOUT, LOADED
from corral_operator.report.condition import Condition, condition_in
from corral_operator.report.inspected import inspected
from corral_operator.report.phases import PHASES, phase
from corral_operator.report.placement import slowed
from corral_operator.report.pulls import NOT_STARTED, pull_failure, pull_state
from corral_operator.report.view import ModelView

READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"

Cause = tuple[str, str]
"""Reason and message of a condition."""

_EVICTED = (
    "another model needs the capacity, and the runners were ended because their requests did not finish within "
    "CORRAL_EVICTION_TIMEOUT, or because their load made no progress for OLLAMA_LOAD_TIMEOUT"
)
_LOAD_FAILED = "LoadFailed"
_NO_FAILURE = frozenset({*PHASES, EVICTION_TIMEOUT})
"""Reasons of Loaded, while it is False, that are no failure of a load."""


def readiness(view: ModelView) -> list[Condition]:
    """Return Loaded and Ready of an accepted Model, then Reconciling or Stalled while one of them holds."""
    blocked = _blocked(view)
    ready = Condition(READY, False, *blocked) if blocked else Condition(READY, True, *_serves(view))
    return [loaded(view), ready, *_progress(view, ready)]


def not_accepted(reason: str, message: str) -> list[Condition]:
    """Return Ready and Stalled of a Model that is not accepted."""
    return [Condition(READY, False, reason, message), Condition(STALLED, True, reason, message)]


def loaded(view: ModelView) -> Condition:
    decision, count = view.decision, view.ready
    if decision is not None and decision.interrupt:
        return Condition(LOADED, count > 0, EVICTION_TIMEOUT, _EVICTED)
    current = phase(view)
    if count:
        nodes = sorted({pod.node for pod in view.staying if pod.ready and pod.node})
        where = f", on {', '.join(nodes)}" if nodes else ""
        reason = "Draining" if current == "Draining" else "Loaded"
        return Condition(LOADED, True, reason, f"{count} of {len(view.staying)} runners are ready{where}")
    wanted = decision is not None and decision.replicas > 0
    if wanted and view.failure is not None:
        return Condition(LOADED, False, view.failure.reason, view.failure.message)
    if current == "Loading":
        return Condition(LOADED, False, "Loading", "a runner starts or loads the weights")
    return _last_load(view) or Condition(LOADED, False, current, decision.reason if decision is not None else "")


def _last_load(view: ModelView) -> Condition | None:
    """Return Loaded of a Model without runners whose last load with the present spec failed; None if it did not."""
    old = condition_in(view.item.status, LOADED)
    reason, message = get_str(old, "reason"), get_str(old, "message")
    current = get_int(old, "observedGeneration") == view.item.meta.generation
    if view.staying or not current or get_str(old, "status") != "False" or reason in _NO_FAILURE:
        return None
    if reason != _LOAD_FAILED:
        message = f"the last load failed, and the next request tries again: {message}"
    return Condition(LOADED, False, _LOAD_FAILED, message)


def _blocked(view: ModelView) -> Cause | None:
    """Return why no request can be served at present, None if one can."""
    decision, model = view.decision, view.item.model
    if decision is None or model is None:
        return "Pending", "the operator has not processed this Model yet"
    if model.spec.suspend:
        return "Suspended", decision.reason
    if model.spec.replicas == 0:
        return "ScaledToZero", "requests are rejected: spec.replicas is 0"
    if view.ready:
        return None
    if decision.failure is not None:
        return "NoSuitableNode", decision.failure
    return _weights_missing(view) or _runners_fail(view)


def _weights_missing(view: ModelView) -> Cause | None:
    """Return why no runner can start yet: the header of the weights is not read, or they are not pulled."""
    if view.uninspected and view.rejected_object is None:
        found = inspected(view)
        return found.reason, found.message
    if view.pull is None or view.pods:
        return None
    if view.unpulled or view.pull.holds_start:
        _, reason, message = pull_state(view.pull)
        return None if reason == NOT_STARTED else (reason, message)
    return None


def _runners_fail(view: ModelView) -> Cause | None:
    """Return why runners that are wanted fail, or why an object of the Model is rejected."""
    decision, failure = view.decision, view.failure
    wanted = decision is not None and decision.replicas > 0
    if failure is None or not (wanted or failure is view.rejected_object):
        return None
    return failure.reason, failure.message


def _serves(view: ModelView) -> Cause:
    """Return reason and message of Ready while it is True."""
    current, reason = phase(view), view.decision.reason if view.decision is not None else ""
    slow = slowed(view)
    if slow is not None and current == "Degraded":
        return "NotAccelerated", slow[2]
    if view.pull is not None and not view.pods and view.unpulled:
        return "PullOnDemand", view.pull.postponed
    if current == "Pulling" and view.pull is not None:
        _, _, message = pull_state(view.pull)
        return "Pulling", message
    if current == "Idle":
        return "Idle", f"{reason}; the next request loads the model"
    if current == "Loading":
        return "Loading", loaded(view).message
    return current, loaded(view).message if current == "Ready" else reason


def _progress(view: ModelView, ready: Condition) -> list[Condition]:
    """Return Stalled or Reconciling while one of them holds."""
    if phase(view) == "Failed":
        return [Condition(STALLED, True, ready.reason, ready.message)]
    rejected = view.rejected_object
    if rejected is not None and rejected.phase == "Failed":
        return [Condition(STALLED, True, rejected.reason, rejected.message)]
    cause = _reconciling(view, ready)
    return [Condition(RECONCILING, True, *cause)] if cause is not None else []


def _reconciling(view: ModelView, ready: Condition) -> Cause | None:
    """Return what the operator works towards by itself, None if nothing is left to do before a request comes."""
    decision, model, pull = view.decision, view.item.model, view.pull
    if decision is None or model is None:
        return None
    if model.spec.suspend:
        return ("Draining", decision.reason) if view.pods else None
    if not ready.true and ready.reason != "ScaledToZero":
        return ready.reason, ready.message
    if view.metadata is None:
        found = inspected(view)
        return found.reason, found.message
    if pull is not None and not pull.in_pods and pull.wanted and (not pull.pulled or pull.update is not None):
        failure = pull_failure(pull)
        return None if failure is not None and failure.phase == "Failed" else pull_state(pull)[1:]
    staying, kept = len(view.staying), max(model.spec.min_replicas, model.spec.replicas or 0)
    if 0 < decision.replicas < staying and view.ready:
        return "RollingOut", f"{view.ready} of {staying} runners are ready; those of the earlier template end"
    if view.ready < kept:
        return "Loading", f"{view.ready} of {kept} runners that the spec asks for are ready"
    return None
