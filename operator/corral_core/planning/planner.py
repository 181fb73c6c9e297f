"""Planner: the number of replicas of every Model as a pure function of the observed state.

- ``plan`` does no I/O and reads no clock; it runs unchanged in the operator and in local mode.
- It is level-triggered: the plan follows from the snapshot alone, so a lost message or a restart changes nothing.
- Two steps: decisions that follow from a Model's own state (this module), then the allocation of capacity to pending
  Models with evictions (``allocation``, ``eviction``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from corral_core.base.durations import FOREVER, format_duration
from corral_core.planning.allocation import allocate
from corral_core.planning.eviction import (
    is_idle,
    is_loading,
    is_pinned,
    is_stalled,
    min_residency_end,
    stall_time,
    turn_end,
)
from corral_core.planning.node_fit import FeasibilityCache
from corral_core.planning.snapshot import Decision, ModelState, Plan, Policy, ScaleDownCause, Snapshot


def plan(snapshot: Snapshot, now: float) -> Plan:
    """Decide on every Model of the snapshot, and when the plan changes by time alone.

    ``now`` is in Unix seconds. A plan is idempotent: computed again after it was applied, it is the same, as long as
    nothing else changes. One eviction takes two plans: an idle Model with pending requests is about to get them, so it
    drains first and is unloaded only if it is idle in the next plan.
    """
    settled: dict[str, Decision] = {}
    pending: list[ModelState] = []
    new_nodes = [pool.node for pool in snapshot.node_pools] if snapshot.nodes else []
    feasibility = FeasibilityCache([*(state.node for state in snapshot.nodes), *new_nodes])
    for model in snapshot.models:
        decision = _infeasible(model, feasibility) or _settled(model, snapshot.policy, now)
        if decision is None:
            pending.append(model)
        else:
            settled[model.key] = decision
    decisions = allocate(snapshot, settled, pending, now=now)
    waiting = any(decision.waiting_for_capacity for decision in decisions.values())
    for model in snapshot.models:
        decisions[model.key] = _with_deadline(model, decisions[model.key], snapshot.policy, now=now, waiting=waiting)
    return Plan(decisions, _replan_at(snapshot, decisions, now))


def _with_deadline(model: ModelState, decision: Decision, policy: Policy, *, now: float, waiting: bool) -> Decision:
    """Record since when the Model drains or terminates; end its requests after the deadline if a Model waits."""
    terminating = decision.replicas == 0 and bool(model.replicas)
    if not decision.draining and not terminating:
        return decision
    since = model.draining_since if decision.draining_since is None else decision.draining_since
    since = now if since is None else since
    overdue = terminating and waiting and now >= since + policy.eviction_timeout
    return replace(decision, draining_since=since, interrupt=decision.interrupt or overdue)


def _infeasible(model: ModelState, feasibility: FeasibilityCache) -> Decision | None:
    """Decide on a Model that needs more than any node has: it does not start, and its requests fail with the reason."""
    fixed = _fixed(model)
    if model.live or (fixed is not None and fixed.replicas == 0):
        return None
    failure = feasibility.reason_never_fits(model.requirements)
    return Decision(0, failure, failure=failure, cause=ScaleDownCause.FAILED) if failure is not None else None


def _settled(model: ModelState, policy: Policy, now: float) -> Decision | None:
    """Decide by the Model's own state; None if requests are pending and capacity must be allocated."""
    fixed = _fixed(model)
    if model.not_pulled is not None and not model.live and not model.desired:
        return fixed if fixed is not None and fixed.replicas == 0 else Decision(0, model.not_pulled)
    if fixed is not None:
        return fixed
    if model.desired > 0 or is_pinned(model):
        return _running(model, policy, now)
    if model.demand is not None:
        return None
    return Decision(0, "being unloaded" if model.replicas else "inactive: no pending requests")


def _fixed(model: ModelState) -> Decision | None:
    if model.rejection is not None:
        return Decision(0, model.rejection, cause=ScaleDownCause.FAILED)
    if model.spec.suspend:
        return Decision(0, "suspended: spec.suspend is true")
    if model.spec.replicas is not None:
        return Decision(model.spec.replicas, f"fixed: spec.replicas is {model.spec.replicas}")
    return None


def _running(model: ModelState, policy: Policy, now: float) -> Decision:
    minimum = model.spec.min_replicas
    kept = max(minimum, min(model.desired, model.spec.max_replicas))
    if model.demand is not None:
        return Decision(max(kept, 1), "requests are pending: loading" if is_loading(model) else "serving requests")
    scale_down = _scale_down(model, policy, now)
    if scale_down is not None:
        cause, reason = scale_down
        return Decision(minimum, f"kept: spec.minReplicas is {minimum}" if minimum else reason, cause=cause)
    return Decision(kept, _kept_reason(model, policy))


def _scale_down(model: ModelState, policy: Policy, now: float) -> tuple[ScaleDownCause, str] | None:
    """Return why a Model without pending requests scales down; None while it stays loaded."""
    if not model.live:
        return ScaleDownCause.UNUSED, "unloaded: no pending requests"
    if is_idle(model):
        expiry = _expiry(model, policy)
        expired = expiry is not None and now >= expiry
        return (ScaleDownCause.EXPIRED, "unloaded: keep_alive expired") if expired else None
    if is_stalled(model, policy, now):
        timeout = format_duration(policy.load_timeout)
        return (
            ScaleDownCause.UNUSED,
            f"load timeout: no progress for {timeout} (OLLAMA_LOAD_TIMEOUT), no pending requests",
        )
    return None


def _expiry(model: ModelState, policy: Policy) -> float | None:
    """Return when the last replica's keep_alive expires; None if never.

    A keep_alive of 0 does not expire before the minimum residency, within which the first request arrives.
    """
    expiries = [replica.status.expires_at if replica.status else None for replica in model.live]
    known = [end for end in expiries if end is not None]
    if not known or len(known) < len(expiries):
        return None
    return max(*known, min_residency_end(model, policy) or 0.0)


def _kept_reason(model: ModelState, policy: Policy) -> str:
    if model.spec.min_replicas > 0:
        return f"kept: spec.minReplicas is {model.spec.min_replicas}"
    if is_loading(model):
        return "loading"
    if not is_idle(model):
        return "serving requests"
    if _expiry(model, policy) is None:
        return "loaded: keep_alive is negative (never unloaded)"
    return "loaded: keep_alive has not expired"


def _replan_at(snapshot: Snapshot, decisions: Mapping[str, Decision], now: float) -> float | None:
    """Return the first time after ``now`` at which a keep_alive, a minimum residency, a timeout or a deadline ends."""
    times: list[float | None] = []
    policy = snapshot.policy
    waiting = any(decision.waiting_for_capacity for decision in decisions.values())
    for model in snapshot.models:
        decision = decisions[model.key]
        if decision.draining_since is not None:
            times.append(decision.draining_since + policy.eviction_timeout)
        if decision.replicas > 0:
            expiry = _expiry(model, policy) if is_idle(model) else None
            times += (expiry, stall_time(model, policy), min_residency_end(model, policy))
            times.append(turn_end(model, policy) if waiting and model.demand is not None else None)
        elif model.demand is not None:
            times.append(model.demand.oldest + policy.eviction_timeout)
    return min((end for end in times if end is not None and now < end < FOREVER), default=None)
