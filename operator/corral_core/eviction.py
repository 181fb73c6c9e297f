"""Who makes room: which loaded Model leaves when another one is waited for and every place is taken.

Ollama's order: the shortest keep_alive first, forever last, then by name; not the least recently used. What holds:

- Nobody leaves who is pinned (minReplicas, spec.replicas), still loading, or just loaded and not yet used.
- A Model leaves at once only when it is idle. A busy one *drains*: it takes no new requests, ends those it has, and
  leaves when it is idle, so that steady traffic cannot keep it. It stays picked until then, or until another one is
  idle first: nobody gains from waiting longer than that.
- A Model that requests wait for makes room only for requests that are older than all of its own, so two Models that
  alternate in one place take turns by age, and neither starves.
"""

from __future__ import annotations

from collections.abc import Iterable

from corral_core.activity import FOREVER
from corral_core.snapshot import ModelState, Policy, Replica


def pinned(model: ModelState) -> bool:
    """Whether the user has fixed a number of replicas that making room may not undercut."""
    return model.spec.min_replicas > 0 or model.spec.replicas is not None


def idle(model: ModelState) -> bool:
    """Whether every replica is loaded, reachable and without work."""
    return bool(model.live) and all(replica.idle for replica in model.live)


def loading(model: ModelState) -> bool:
    """Whether a replica is still to come: not begun, or started and neither loaded nor ready yet."""
    return not model.live or any(_loading(replica) for replica in model.live)


def _loading(replica: Replica) -> bool:
    if replica.activity is not None:
        return not replica.activity.loaded
    return not replica.ready


def unused_until(model: ModelState, policy: Policy) -> float | None:
    """When the grace ends of a replica that is loaded and has served nobody yet; None when there is none."""
    ends = [
        replica.ready_since + policy.min_residency
        for replica in model.live
        if replica.ready_since is not None and replica.idle and replica.activity and replica.activity.last_end is None
    ]
    return max(ends, default=None)


def evictable(models: Iterable[ModelState], policy: Policy, now: float) -> list[ModelState]:
    """The Models that may make room, in the order in which they do. All are meant to be running."""
    candidates = [model for model in models if not pinned(model) and not loading(model)]
    settled = [model for model in candidates if (unused_until(model, policy) or now) <= now]
    return sorted(settled, key=_order)


def _order(model: ModelState) -> tuple[bool, float, str]:
    keep_alive = max(replica.activity.keep_alive if replica.activity else FOREVER for replica in model.live)
    return not model.draining, keep_alive, model.key


def can_leave(model: ModelState, oldest: float) -> bool:
    """Whether it can leave at once for a request of the age ``oldest``."""
    return idle(model) and (model.demand is None or (model.draining and model.demand.oldest > oldest))


def can_drain(model: ModelState, oldest: float) -> bool:
    """Whether it may be made idle for a request of the age ``oldest``."""
    return model.demand is None or model.demand.oldest > oldest
