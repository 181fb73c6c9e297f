"""Who gets a place: at most ``policy.loaded_limit`` Models are loaded at once (OLLAMA_MAX_LOADED_MODELS).

A place is taken by every Model that is to run, and by every replica on its way out until it is gone. Those who wait are
served by the age of their oldest request. Pinned Models start without asking, and may exceed the limit; then idle ones
leave to get back under it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from corral_core.eviction import evictable, first_idle, first_to_drain
from corral_core.snapshot import Decision, ModelState, Snapshot


@dataclass
class _Places:
    """The places while they are shared out: ``free`` now, ``freed`` soon, and ``candidates`` to make more of them."""

    limit: int
    free: int
    freed: int
    candidates: list[ModelState]
    decisions: dict[str, Decision]


def share_out(
    snapshot: Snapshot, settled: Mapping[str, Decision], claimants: Sequence[ModelState], *, now: float
) -> dict[str, Decision]:
    """All decisions: for the ``claimants`` (requests wait and nothing is to run) and for those who make room for them.

    ``settled`` are the decisions on all Models but the claimants; they hold for who makes no room.
    """
    places = _count(snapshot, settled, now)
    _back_under_limit(places)
    for model in sorted(claimants, key=_age):
        places.decisions[model.key] = _serve(places, model)
    return places.decisions


def _count(snapshot: Snapshot, settled: Mapping[str, Decision], now: float) -> _Places:
    running = [model for model in snapshot.models if model.key in settled and settled[model.key].replicas > 0]
    running_keys = {model.key for model in running}
    leaving = sum(1 for model in snapshot.models if model.leaving or (model.live and model.key not in running_keys))
    limit = snapshot.policy.loaded_limit
    free = limit - len(running) - leaving
    return _Places(limit, free, leaving, evictable(running, snapshot.policy, now), dict(settled))


def _back_under_limit(places: _Places) -> None:
    while places.free + places.freed < 0:
        victim = first_idle([model for model in places.candidates if model.demand is None], oldest=0.0)
        if victim is None:
            return
        places.candidates.remove(victim)
        places.freed += 1
        reason = f"unloaded: more than {places.limit} models (OLLAMA_MAX_LOADED_MODELS) are loaded"
        places.decisions[victim.key] = Decision(0, reason)


def _age(model: ModelState) -> tuple[float, float, str]:
    return (model.demand.oldest if model.demand else 0.0), model.created, model.key


def _serve(places: _Places, model: ModelState) -> Decision:
    """One claimant's Decision: start now, or wait for a place, which the first victim in order is to free."""
    if places.free > 0:
        places.free -= 1
        return Decision(1, "requests wait: starting")
    if places.free + places.freed > 0:
        places.free -= 1
        return _waits("requests wait: starts when a model that is being unloaded is gone")
    oldest = model.demand.oldest if model.demand else 0.0
    return _evict_for(places, model, oldest) or _drain_for(places, model, oldest) or _waits(_full(places))


def _evict_for(places: _Places, model: ModelState, oldest: float) -> Decision | None:
    victim = first_idle(places.candidates, oldest)
    if victim is None:
        return None
    places.candidates.remove(victim)
    places.decisions[victim.key] = Decision(0, f"unloaded: makes room for {model.key}", yields_to=model.key)
    return _waits(f"requests wait: {victim.key} is unloaded to make room")


def _drain_for(places: _Places, model: ModelState, oldest: float) -> Decision | None:
    victim = first_to_drain(places.candidates, oldest)
    if victim is None:
        return None
    places.candidates.remove(victim)
    reason = f"ends its requests and takes no new ones: makes room for {model.key}"
    places.decisions[victim.key] = replace(
        places.decisions[victim.key], reason=reason, draining=True, yields_to=model.key
    )
    return _waits(f"requests wait: {victim.key} ends its requests to make room")


def _full(places: _Places) -> str:
    return (
        f"requests wait: all {places.limit} places (OLLAMA_MAX_LOADED_MODELS) are taken by models that are pinned, "
        "loading, or waited for longer"
    )


def _waits(reason: str) -> Decision:
    return Decision(0, reason, waiting_for_capacity=True)
