"""The smallest set of loaded Models that makes enough room for another one, all of it on one node.

Of several sets that do, on one node or on several: first the one for which the fewest are newly picked, so that those
who drain already stay picked; then the one on the node that was in mind before; then the smallest; then the first in
the order of eviction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from corral_core.node import Needs
from corral_core.quantities import Amounts, total
from corral_core.room import ANYWHERE, Room, Spot, shortage
from corral_core.snapshot import ModelState

_SEARCHED = 10
"""Of more Models on one node the smallest set is not searched for, only one of which nobody is needless."""


@dataclass(frozen=True, slots=True)
class Picked:
    """Who makes room, in order, and on which node."""

    victims: tuple[ModelState, ...]
    place: str


def pick(room: Room, needs: Needs | None, preferred: str, *, among: Sequence[ModelState], least: int) -> Picked | None:
    """Who of ``among`` (in order) makes room for ``needs``; None when not all of them would be enough.

    ``least`` is 1 when a place is short, which anybody frees, else 0.
    """
    if not among:
        return None
    if needs is None or not room.spots:
        return Picked(tuple(among[:1]), ANYWHERE)
    rank = {model.key: number for number, model in enumerate(among)}
    by_node = _by_node(among)
    best: tuple[tuple[int, bool, int, list[int]], Picked] | None = None
    for spot in room.attainable(needs):
        found = _on(spot, needs, by_node.get(spot.node.name, ()))
        if found is None:
            continue
        victims = found or tuple(among[:least])
        fresh = sum(1 for model in victims if not model.draining)
        ranks = [rank[model.key] for model in victims]
        cost = fresh, spot.node.name != preferred, len(victims), ranks
        if victims and (best is None or cost < best[0]):
            best = cost, Picked(victims, spot.node.name)
    return best[1] if best else None


def _by_node(models: Sequence[ModelState]) -> dict[str, list[tuple[ModelState, Amounts]]]:
    """What each Model would free on each node, in order."""
    found: dict[str, list[tuple[ModelState, Amounts]]] = {}
    for model in models:
        for node in {replica.node for replica in model.live}:
            freed = total(replica.holds for replica in model.live if replica.node == node)
            found.setdefault(node, []).append((model, freed))
    return found


def _on(spot: Spot, needs: Needs, candidates: Sequence[tuple[ModelState, Amounts]]) -> tuple[ModelState, ...] | None:
    """The smallest set on one node; empty when nobody has to leave there, None when not all would be enough."""
    short = shortage(spot, needs)
    if not short:
        return ()
    helping = [each for each in candidates if any(each[1].get(resource) for resource in short)]
    if not _enough(helping, short):
        return None
    chosen = _smallest(helping, short) if len(helping) <= _SEARCHED else _needed(helping, short)
    return tuple(model for model, _ in chosen)


_Set = Sequence[tuple[ModelState, Amounts]]


def _smallest(candidates: _Set, short: Amounts) -> _Set:
    for size in range(1, len(candidates)):
        for chosen in combinations(candidates, size):
            if _enough(chosen, short):
                return chosen
    return candidates


def _needed(candidates: _Set, short: Amounts) -> _Set:
    """In order until it is enough; then everybody without whom it still is goes back, the last in order first."""
    chosen: list[tuple[ModelState, Amounts]] = []
    for each in candidates:
        chosen.append(each)
        if _enough(chosen, short):
            break
    for each in reversed(tuple(chosen)):
        without = [other for other in chosen if other is not each]
        if _enough(without, short):
            chosen = without
    return chosen


def _enough(chosen: _Set, short: Amounts) -> bool:
    return all(sum(freed.get(resource, 0) for _, freed in chosen) >= number for resource, number in short.items())
