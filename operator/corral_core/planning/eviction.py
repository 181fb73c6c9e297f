"""Eviction rules: which loaded Models may be unloaded for a pending one, and in which order.

The order is Ollama's (``server/sched.go``, ``ByDurationAndName``): shortest keep_alive first, FOREVER last, then by
name; not least recently used. Invariants:

- A Model is never evicted while it is pinned (minReplicas, spec.replicas), or loaded and not used yet. It is not
  evicted while its first load progresses; a load that has *stalled* (no progress for the load timeout) is a victim.
- Only an idle Model is unloaded at once. A busy Model *drains*: it accepts no new requests, finishes those it has and
  is unloaded when idle, so steady traffic cannot keep it. It remains the victim until then, unless another candidate
  becomes idle first.
- A drain has a deadline. After it the remaining requests are ended, so a runner that always reports requests in flight
  does not keep its capacity.
- A Model with pending requests is evicted only for requests older than all of its own, so two Models that compete for
  one node alternate by age and neither starves. This protects it for one *turn*, the length of the eviction timeout: a
  runner that answers no request has pending requests of any age.
- A Model whose turn or deadline is over, or whose load has stalled, goes behind the requests that wait at that time
  (``Decision.age_floor``).
"""

from __future__ import annotations

from collections.abc import Iterable

from corral_core.base.durations import FOREVER
from corral_core.planning.snapshot import ModelState, Policy, Replica


def is_pinned(model: ModelState) -> bool:
    """Whether the user set a number of replicas that eviction must not undercut."""
    return model.spec.min_replicas > 0 or model.spec.replicas is not None


def is_idle(model: ModelState) -> bool:
    """Whether every replica is loaded, reachable and without requests."""
    return bool(model.live) and all(replica.idle for replica in model.live)


def is_loading(model: ModelState) -> bool:
    """Whether a replica is not created yet, or created and not loaded or ready yet."""
    return not model.live or any(_is_loading(replica) for replica in model.live)


def _is_loading(replica: Replica) -> bool:
    if replica.status is not None:
        return not replica.status.loaded
    return not replica.ready


def min_residency_end(model: ModelState, policy: Policy) -> float | None:
    """Return when the minimum residency of loaded, unused replicas ends; None if there are none."""
    ends = [
        replica.ready_since + policy.min_residency
        for replica in model.live
        if replica.ready_since is not None and replica.idle and replica.status and replica.status.last_end is None
    ]
    return max(ends, default=None)


def eviction_candidates(models: Iterable[ModelState], policy: Policy, now: float) -> list[ModelState]:
    """Return the Models that may be evicted, in eviction order; ``models`` are those that should run."""
    unpinned = [model for model in models if not is_pinned(model)]
    candidates = [model for model in unpinned if not _in_first_load(model) or is_stalled(model, policy, now)]
    settled = [model for model in candidates if (min_residency_end(model, policy) or now) <= now]
    return sorted(settled, key=lambda model: (not model.draining, not is_stalled(model, policy, now), *_order(model)))


def _order(model: ModelState) -> tuple[float, str]:
    """Order Models as Ollama does; draining and stalled ones come first."""
    keep_alive = (replica.status.keep_alive if replica.status else FOREVER for replica in model.live)
    return max(keep_alive, default=FOREVER), model.key


def _in_first_load(model: ModelState) -> bool:
    """Whether the Model was not loaded yet. One that loads again, after a crash or an edit, can be drained."""
    return not model.live or (model.loaded_since is None and is_loading(model))


def stall_time(model: ModelState, policy: Policy) -> float | None:
    """Return when the start counts as stalled unless it progresses; None if the Model does not start."""
    if not model.live:
        return None if model.starting_since is None else model.starting_since + policy.load_timeout
    loading = [replica.last_progress for replica in model.live if _is_loading(replica)]
    return max(loading) + policy.load_timeout if loading else None


def is_stalled(model: ModelState, policy: Policy, now: float) -> bool:
    """Whether the Model starts and nothing of it has progressed for the load timeout."""
    time = stall_time(model, policy)
    return time is not None and now >= time


def turn_end(model: ModelState, policy: Policy) -> float | None:
    """Return when the ages of its pending requests protect a loaded Model no more; None if that is not known."""
    return None if model.loaded_since is None else model.loaded_since + policy.eviction_timeout


def drain_deadline(model: ModelState, policy: Policy) -> float | None:
    """Return when the requests of a draining Model, or of terminating replicas, are ended; None without a drain."""
    return None if model.draining_since is None else model.draining_since + policy.eviction_timeout


def can_unload(model: ModelState, oldest: float) -> bool:
    """Whether the Model can be unloaded at once for a request that arrived at ``oldest``."""
    return is_idle(model) and (model.demand is None or (model.draining and model.demand.oldest > oldest))


def can_drain(model: ModelState, oldest: float) -> bool:
    """Whether the Model may be drained for a request that arrived at ``oldest``."""
    return model.demand is None or model.demand.oldest > oldest
