"""How many replicas each Model is to have: a pure function of what is observed.

``plan`` does no I/O and reads no clock; it runs unchanged in the operator and in local mode. It is level-triggered:
every answer is derived from the snapshot alone, so a lost message or a restart changes nothing. Two steps: what a
Model's own state says (here), then who gets the places that are left and who makes room (``places``, ``eviction``).
"""

from __future__ import annotations

from collections.abc import Mapping

from corral_core.activity import FOREVER
from corral_core.eviction import idle, loading, pinned, unused_until
from corral_core.fit import Verdicts
from corral_core.places import share_out
from corral_core.snapshot import Cause, Decision, ModelState, Plan, Policy, Snapshot


def plan(snapshot: Snapshot, now: float) -> Plan:
    """One Decision for every Model of the snapshot, and when time alone will change the answer.

    ``now`` is Unix seconds. Applied and made again, the plan is the same, as long as nothing else happens. One case
    takes a second plan: a Model that is idle although requests wait for it is about to get them, so it first stops
    taking new ones, and leaves only when it is seen idle again.
    """
    settled: dict[str, Decision] = {}
    claimants: list[ModelState] = []
    verdicts = Verdicts([state.node for state in snapshot.nodes])
    for model in snapshot.models:
        decision = _hopeless(model, verdicts) or _by_itself(model, snapshot.policy, now)
        if decision is None:
            claimants.append(model)
        else:
            settled[model.key] = decision
    decisions = share_out(snapshot, settled, claimants, now=now)
    return Plan(decisions, _next_time(snapshot, decisions, now))


def _hopeless(model: ModelState, verdicts: Verdicts) -> Decision | None:
    """For a Model that asks for more than any node has: it is not tried, and whoever waits for it is told why."""
    fixed = _fixed(model)
    if model.live or (fixed is not None and fixed.replicas == 0):
        return None
    failure = verdicts.why_never(model.needs)
    return Decision(0, failure, failure=failure, cause=Cause.FAILED) if failure is not None else None


def _by_itself(model: ModelState, policy: Policy, now: float) -> Decision | None:
    """What the Model's own state asks for; None when requests wait and a place must be found."""
    fixed = _fixed(model)
    if fixed is not None:
        return fixed
    if model.desired > 0 or pinned(model):
        return _running(model, policy, now)
    if model.demand is not None:
        return None
    return Decision(0, "being unloaded" if model.replicas else "idle: nobody asks for it")


def _fixed(model: ModelState) -> Decision | None:
    if model.refused is not None:
        return Decision(0, model.refused, cause=Cause.FAILED)
    if model.spec.suspend:
        return Decision(0, "suspended: spec.suspend is true")
    if model.spec.replicas is not None:
        return Decision(model.spec.replicas, f"fixed: spec.replicas is {model.spec.replicas}")
    return None


def _running(model: ModelState, policy: Policy, now: float) -> Decision:
    least = model.spec.min_replicas
    kept = max(least, min(model.desired, model.spec.max_replicas))
    if model.demand is not None:
        return Decision(max(kept, 1), "requests wait: loading" if loading(model) else "serving requests")
    ended = _ended(model, policy, now)
    if ended is not None:
        cause, reason = ended
        return Decision(least, f"kept: spec.minReplicas is {least}" if least else reason, cause=cause)
    return Decision(kept, _why_kept(model, policy))


def _ended(model: ModelState, policy: Policy, now: float) -> tuple[Cause, str] | None:
    """Why a Model that nobody waits for need not run any longer; None while it does."""
    if not model.live:
        return Cause.UNUSED, "unloaded: nobody waits for it any more"
    if idle(model):
        expiry = _expiry(model, policy)
        expired = expiry is not None and now >= expiry
        return (Cause.EXPIRED, "unloaded: its keep_alive ran out") if expired else None
    give_up = _give_up(model, policy)
    if give_up is not None and now >= give_up:
        return Cause.UNUSED, f"given up: not loaded after {policy.load_timeout:g} s, and nobody waits for it"
    return None


def _expiry(model: ModelState, policy: Policy) -> float | None:
    """When the last replica's keep_alive runs out; None: never.

    A keep_alive of 0 does not run out before the request has come that the replica was started for.
    """
    ends = [replica.activity.expires_at if replica.activity else None for replica in model.live]
    known = [end for end in ends if end is not None]
    if not known or len(known) < len(ends):
        return None
    return max(*known, unused_until(model, policy) or 0.0)


def _give_up(model: ModelState, policy: Policy) -> float | None:
    """When a load that nobody waits for is given up; None when nothing loads."""
    if not model.live or not loading(model):
        return None
    return max(replica.started_at for replica in model.live) + policy.load_timeout


def _why_kept(model: ModelState, policy: Policy) -> str:
    if model.spec.min_replicas > 0:
        return f"kept: spec.minReplicas is {model.spec.min_replicas}"
    if loading(model):
        return "loading"
    if not idle(model):
        return "serving requests"
    if _expiry(model, policy) is None:
        return "loaded for ever: its keep_alive is negative"
    return "loaded: its keep_alive has not run out"


def _next_time(snapshot: Snapshot, decisions: Mapping[str, Decision], now: float) -> float | None:
    """The first moment after ``now`` at which a keep_alive, a grace or a load's patience ends."""
    times: list[float] = []
    for model in snapshot.models:
        if decisions[model.key].replicas == 0:
            continue
        policy = snapshot.policy
        expiry = _expiry(model, policy) if idle(model) else None
        ends = (expiry, _give_up(model, policy), unused_until(model, policy))
        times.extend(end for end in ends if end is not None and now < end < FOREVER)
    return min(times, default=None)
