"""Who gets a place: one of ``policy.loaded_limit`` (OLLAMA_MAX_LOADED_MODELS), and room on one node.

A place is taken by every Model that is to run, and by every replica on its way out until it is gone; so is its room.
Those who wait are served by the age of their oldest request. One who cannot be served yet keeps what is promised to it,
and holds up nobody who fits beside that. Pinned Models start without asking for a place, and may exceed the limit; then
idle ones leave to get back under it. Room on a node they need as all others do.

A Model that was told to start and has no node yet is begun anew in every plan: it goes on where it still fits, and
otherwise waits like the others, for somebody else may have been faster.

Age comes before what was promised: of several nodes, an older one whose own is not free yet may start on the one that
is being freed for a younger one. The younger one then gets what the older one waited for, where it fits there; where
it does not, somebody else makes room for it, who would otherwise have stayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from corral_core.eviction import can_drain, can_leave, evictable, pinned
from corral_core.quantities import MEMORY
from corral_core.room import ANYWHERE, Room, Spot
from corral_core.snapshot import Cause, Decision, ModelState, Snapshot
from corral_core.victims import Allowed, Candidates, Picked, pick


@dataclass
class _Places:
    """What is shared out: places ``free`` now and ``later``, the room, and ``candidates`` to make more of both."""

    limit: int
    free: int
    later: int
    room: Room
    candidates: Candidates
    decisions: dict[str, Decision]


def share_out(
    snapshot: Snapshot, settled: Mapping[str, Decision], claimants: Sequence[ModelState], *, now: float
) -> dict[str, Decision]:
    """All decisions: for the ``claimants`` (requests wait and nothing is to run) and for those who make room for them.

    ``settled`` are the decisions on all Models but the claimants; they hold for who makes no room.
    """
    places = _count(snapshot, settled, now)
    begun = [model for model in snapshot.models if _is_begun(model, settled)]
    waiting = [*_go_on(places, begun), *claimants] if snapshot.nodes else claimants
    _back_under_limit(places)
    for model in sorted(waiting, key=_age):
        places.decisions[model.key] = _serve(places, model)
    return places.decisions


def _count(snapshot: Snapshot, settled: Mapping[str, Decision], now: float) -> _Places:
    running = [model for model in snapshot.models if model.key in settled and settled[model.key].replicas > 0]
    running_keys = {model.key for model in running}
    leaving = sum(1 for model in snapshot.models if model.leaving or (model.live and model.key not in running_keys))
    room = Room(snapshot.nodes)
    for model in snapshot.models if snapshot.nodes else ():
        ending = model.replicas if model.key not in running_keys else [one for one in model.replicas if one.terminating]
        room.frees(ending)
        room.could_free(ending if pinned(model) else model.replicas)
    limit = snapshot.policy.loaded_limit
    free = limit - len(running) - leaving
    candidates = Candidates(evictable(running, snapshot.policy, now))
    return _Places(limit, free, free + leaving, room, candidates, dict(settled))


def _is_begun(model: ModelState, settled: Mapping[str, Decision]) -> bool:
    """Whether it is to run and has no node yet."""
    return model.key in settled and settled[model.key].replicas > 0 and not model.live


def _go_on(places: _Places, begun: Sequence[ModelState]) -> list[ModelState]:
    """Those who have begun keep the room that they find; returns the others."""
    waiting = []
    for model in sorted(begun, key=_age):
        place = places.room.now(model.needs, model.place)
        if place is not None:
            places.room.take(place, model.needs)
            places.decisions[model.key] = replace(places.decisions[model.key], place=place)
            continue
        if not pinned(model):
            places.free += 1
            places.later += 1
        waiting.append(model)
    return waiting


def _back_under_limit(places: _Places) -> None:
    while places.later < 0:
        victim = places.candidates.first(lambda model: model.demand is None and can_leave(model, 0.0))
        if victim is None:
            return
        reason = f"unloaded: more than {places.limit} models (OLLAMA_MAX_LOADED_MODELS) are loaded"
        _leaves(places, victim, Decision(0, reason, cause=Cause.LIMIT))


def _leaves(places: _Places, victim: ModelState, decision: Decision) -> None:
    """The victim makes room: its place and its room count as free later."""
    places.candidates.remove(victim)
    places.later += 1
    places.room.frees(victim.live)
    places.decisions[victim.key] = decision


def _age(model: ModelState) -> tuple[bool, float, float, str]:
    return not pinned(model), (model.demand.oldest if model.demand else 0.0), model.created, model.key


def _serve(places: _Places, model: ModelState) -> Decision:
    """One Decision for a Model that needs a place: start now, or wait until somebody has made room."""
    decision = _start(places, model) or _wait(places, model) or _evict_for(places, model)
    decision = decision or _drain_for(places, model) or _hold(places, model)
    if pinned(model):
        return replace(places.decisions[model.key], place=decision.place)
    return decision


def _start(places: _Places, model: ModelState) -> Decision | None:
    if not pinned(model) and (places.free <= 0 or places.later <= 0):
        return None
    place = places.room.now(model.needs, model.place)
    if place is None:
        return None
    places.room.take(place, model.needs)
    if not pinned(model):
        places.free -= 1
        places.later -= 1
    return Decision(1, "requests wait: starting", place=place)


def _wait(places: _Places, model: ModelState) -> Decision | None:
    if not pinned(model) and places.later <= 0:
        return None
    place = places.room.later(model.needs, model.place)
    if place is None:
        return None
    _promise(places, model, place)
    return _waits("requests wait: starts when a model that is being unloaded is gone", place)


def _promise(places: _Places, model: ModelState, place: str) -> None:
    places.room.promise(place, model.needs)
    if not pinned(model):
        places.later -= 1


def _evict_for(places: _Places, model: ModelState) -> Decision | None:
    oldest = _oldest(model)
    picked = _pick(places, model, lambda each: can_leave(each, oldest))
    if picked is None:
        return None
    for victim in picked.victims:
        _leaves(places, victim, _makes_room(model))
    _promise(places, model, picked.place)
    return _waits(f"requests wait: {_listed(picked)} unloaded to make room", picked.place)


def _drain_for(places: _Places, model: ModelState) -> Decision | None:
    """Busy ones end their requests first; those among the picked who are idle leave at once."""
    oldest = _oldest(model)
    picked = _pick(places, model, lambda each: can_drain(each, oldest))
    if picked is None:
        return None
    for victim in picked.victims:
        if can_leave(victim, oldest):
            decision = _makes_room(model)
        else:
            reason = f"ends its requests and takes no new ones: makes room for {model.key}"
            decision = replace(
                places.decisions[victim.key], reason=reason, draining=True, yields_to=model.key, place=ANYWHERE
            )
        _leaves(places, victim, decision)
    _promise(places, model, picked.place)
    names = ", ".join(victim.key for victim in picked.victims)
    ends = "ends its requests" if len(picked.victims) == 1 else "end their requests"
    return _waits(f"requests wait: {names} {ends} to make room", picked.place)


def _pick(places: _Places, model: ModelState, allowed: Allowed) -> Picked | None:
    least = 0 if pinned(model) or places.later > 0 else 1
    among = places.candidates
    return pick(places.room, model.needs, model.place, among=among, allowed=allowed, least=least)


def _listed(picked: Picked) -> str:
    names = ", ".join(victim.key for victim in picked.victims)
    return f"{names} is" if len(picked.victims) == 1 else f"{names} are"


def _oldest(model: ModelState) -> float:
    """How old a request has to be so that nobody makes room for this Model any more who is waited for by it."""
    if pinned(model):
        return -inf
    return model.demand.oldest if model.demand else 0.0


def _hold(places: _Places, model: ModelState) -> Decision:
    """Nobody can make room at present. A node on which there may be room in time is kept for it."""
    full = places.later <= 0 and not pinned(model)
    place = _kept(places, model)
    if place is not None and not full:
        _promise(places, model, place)
    elif place is not None:
        places.room.promise(place, model.needs)
    if full or model.needs is None:
        return _waits(_full(places), place or ANYWHERE)
    return _waits(f"requests wait: {places.room.why_not(model.needs)}", place or ANYWHERE)


def _kept(places: _Places, model: ModelState) -> str | None:
    if model.needs is None:
        return None
    there = places.room.attainable(model.needs)
    return model.place if model.place in there else min(there, key=lambda name: _rank(there[name]), default=None)


def _rank(spot: Spot) -> tuple[int, str]:
    """The roomiest first, by what does not change while others wait."""
    return -spot.most.get(MEMORY, 0), spot.node.name


def _full(places: _Places) -> str:
    return (
        f"requests wait: all {places.limit} places (OLLAMA_MAX_LOADED_MODELS) are taken by models that are pinned, "
        "loading, or waited for longer"
    )


def _makes_room(model: ModelState) -> Decision:
    return Decision(0, f"unloaded: makes room for {model.key}", yields_to=model.key, cause=Cause.ROOM)


def _waits(reason: str, place: str) -> Decision:
    return Decision(0, reason, waiting_for_capacity=True, place=place)
