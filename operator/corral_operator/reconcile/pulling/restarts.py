"""Starts from zero replicas of Models with ``updatePolicy: OnRestart``, whose source is resolved again before each.

- A start lasts from when a runner is wanted until the Deployment has one. The resolver pod exists for as long, also
  after its end: its presence is what is known of the start, so there is one resolution in each, and a restarted
  operator continues.
- The start waits until the resolver has ended, and until a new version is pulled. If either fails or takes too long to
  begin, the pulled version starts.
- A pull that has begun goes on when no runner is wanted any more, so that short requests get a large model pulled too.
- While a runner is there, nothing is resolved or pulled.
"""

from __future__ import annotations

from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.objects import ModelObject
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.report.pulls import RESOLVE_FAILED, UPDATE_FAILED, shown_pin

RESOLVE_TIMEOUT = 30.0
"""Seconds that a start waits for the resolver."""

PULLER_TIMEOUT = 120.0
"""Seconds after the begin of a start in which the puller of a new version must run; its volume is attached first."""


def starting(state: ClusterState, item: ModelObject, now: float) -> bool:
    """Return whether a pulled Model with the policy OnRestart is about to start from zero replicas."""
    spec = item.model.spec if item.model is not None else None
    if spec is None or not _at_zero(state, item):
        return False
    fixed = spec.replicas if spec.replicas is not None else spec.min_replicas
    asked = spec.replicas is None and state.demand_tracker.demand(item.meta.key, now) is not None
    return fixed > 0 or asked


def updating(state: ClusterState, item: ModelObject) -> bool:
    """Return whether a new version, which a start has found, is to be pulled."""
    key = item.meta.key
    return _at_zero(state, item) and state.update(key) is not None and _pull_failure(state, key) is None


def _at_zero(state: ClusterState, item: ModelObject) -> bool:
    """Return whether the Model follows the policy, is pulled and has no replicas."""
    key, model = item.meta.key, item.model
    if model is None or model.spec.update_policy != "OnRestart" or model.spec.suspend:
        return False
    replicas = any(each.replicas for each in state.deployments.of_model(key))
    return bool(item.remote) and item.inspected and state.pulled(key) and not replicas


def _pull_failure(state: ClusterState, model: str) -> PodFailure | None:
    puller = state.puller(model)
    return state.pull_failures.get(model) or (puller.failure if puller is not None else None)


def observe_start(state: ClusterState, item: ModelObject, now: float) -> None:
    """Record when a start begins; ``end_start`` forgets it."""
    if starting(state, item, now) and item.meta.key not in state.starts:
        state.starts[item.meta.key] = now
        state.start_failures.pop(item.meta.key, None)


def end_start(state: ClusterState, item: ModelObject, now: float) -> None:
    """Forget a start that is over, and record why it was one with the present version until the next one."""
    key = item.meta.key
    if key not in state.starts or starting(state, item, now):
        return
    failure = _start_failure(state, key, now)
    del state.starts[key]
    if failure is not None:
        state.start_failures[key] = failure


def start_blocked(state: ClusterState, item: ModelObject, now: float) -> str | None:
    """Return what a start waits for, None if it waits for nothing or the Model does not start."""
    key = item.meta.key
    if not starting(state, item, now) or _start_failure(state, key, now) is not None:
        return None
    if state.update(key) is not None:
        return "a new version is pulled before the start: spec.updatePolicy is OnRestart"
    inspector = state.inspector(key)
    resolved = inspector is not None and inspector.report is not None
    return None if resolved else "the source is resolved before the start: spec.updatePolicy is OnRestart"


def _start_failure(state: ClusterState, model: str, now: float) -> PodFailure | None:
    """Return why the present version starts although another one may exist, None without a failure."""
    elapsed = now - state.starts.get(model, now)
    update, puller, inspector = state.update(model), state.puller(model), state.inspector(model)
    if update is not None:
        failure = _pull_failure(state, model)
        late = not (puller is not None and puller.running) and elapsed >= PULLER_TIMEOUT
        text = failure.message if failure is not None else f"its puller did not start within {PULLER_TIMEOUT:.0f} s"
        message = f"the new version {shown_pin(update)} is not pulled: {text}"
        return PodFailure(UPDATE_FAILED, message, "Loading") if failure is not None or late else None
    failure = inspector.failure if inspector is not None else None
    failure = failure or state.inspection_failures.get(model)
    late = not (inspector is not None and inspector.report is not None) and elapsed >= RESOLVE_TIMEOUT
    text = failure.message if failure is not None else f"the resolver did not answer within {RESOLVE_TIMEOUT:.0f} s"
    return unresolved(text) if failure is not None or late else None


def unresolved(text: str) -> PodFailure:
    """Return the failure of a source that is pulled and cannot be resolved again."""
    return PodFailure(RESOLVE_FAILED, f"the source cannot be resolved again: {text}", "Loading")


def next_timeout(state: ClusterState, now: float) -> float | None:
    """Return when the next start stops waiting, None if none waits."""
    ends = (since + timeout for since in state.starts.values() for timeout in (RESOLVE_TIMEOUT, PULLER_TIMEOUT))
    return min((end for end in ends if end > now), default=None)
