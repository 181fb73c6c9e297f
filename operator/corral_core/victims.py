"""The smallest set of loaded Models that makes enough room for another one, all of it on one node.

Of several sets that do, on one node or on several: first the one for which the fewest are newly picked, so that those
who drain already stay picked; then the one on the node that was in mind before; then the smallest; then the first in
the order of eviction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from corral_core.node import Needs
from corral_core.quantities import Amounts, total
from corral_core.room import Room, Spot, shortage
from corral_core.snapshot import ModelState

_SEARCHED = 10
"""Of more Models on one node the smallest set is not searched for, only one of which nobody is needless."""

Allowed = Callable[[ModelState], bool]


@dataclass(frozen=True, slots=True)
class Picked:
    """Who makes room, in order, and on which node."""

    victims: tuple[ModelState, ...]
    place: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A Model, its place in the order, and what it frees on one node."""

    rank: int
    model: ModelState
    freed: Amounts


_Set = Sequence[_Candidate]
_Cost = tuple[int, bool, int, list[int]]


class Candidates:
    """Who may make room, in the order in which they do."""

    def __init__(self, models: Sequence[ModelState]) -> None:
        self._models = {model.key: model for model in models}
        self._by_node: dict[str, list[_Candidate]] = {}
        for rank, model in enumerate(models):
            for node, freed in _freed(model).items():
                self._by_node.setdefault(node, []).append(_Candidate(rank, model, freed))

    def __iter__(self) -> Iterator[ModelState]:
        return iter(self._models.values())

    def remove(self, model: ModelState) -> None:
        """It was picked, and makes no more room than that."""
        del self._models[model.key]
        for node in {replica.node for replica in model.live}:
            self._by_node[node] = [each for each in self._by_node[node] if each.model is not model]

    def first(self, allowed: Allowed) -> ModelState | None:
        return next((model for model in self._models.values() if allowed(model)), None)

    def on_nodes(self, preferred: str) -> Iterator[tuple[str, _Set]]:
        """The candidates of each node, in order: the preferred node first, then as the first of each comes."""
        if preferred in self._by_node:
            yield preferred, self._by_node[preferred]
        yield from ((name, found) for name, found in self._by_node.items() if name != preferred)


def _freed(model: ModelState) -> dict[str, Amounts]:
    if len(model.live) == 1:
        return {model.live[0].node: model.live[0].holds}
    nodes = {replica.node for replica in model.live}
    return {node: total(one.holds for one in model.live if one.node == node) for node in nodes}


def pick(
    room: Room, needs: Needs | None, preferred: str, *, among: Candidates, allowed: Allowed, least: int
) -> Picked | None:
    """Who of those ``among`` who are ``allowed`` makes room for ``needs``; None when not all of them would be enough.

    ``least`` is 1 when a place is short, which anybody frees, else 0.
    """
    if least or needs is None or not room.spots:
        place = room.later(needs, preferred)
        if place is not None:
            first = among.first(allowed)
            return Picked((first,), place) if first is not None else None
    return _cheapest(room, needs, preferred, among=among, allowed=allowed) if needs is not None else None


def _cheapest(room: Room, needs: Needs, preferred: str, *, among: Candidates, allowed: Allowed) -> Picked | None:
    attainable = room.attainable(needs)
    best: tuple[_Cost, Picked] | None = None
    for name, there in among.on_nodes(preferred):
        spot = attainable.get(name)
        if spot is None or not there or (best is not None and _hopeless(there, best[0])):
            continue
        found = _on(spot, needs, [each for each in there if allowed(each.model)])
        if found is None:
            continue
        fresh = sum(1 for each in found if not each.model.draining)
        cost = fresh, name != preferred, len(found), [each.rank for each in found]
        if best is None or cost < best[0]:
            best = cost, Picked(tuple(each.model for each in found), name)
    return best[1] if best else None


def _hopeless(there: _Set, best: _Cost) -> bool:
    """Whether no set of these can be cheaper: whoever drains comes first in the order."""
    fresh, _, size, ranks = best
    return fresh == size == 1 and not there[0].model.draining and there[0].rank > ranks[0]


def _on(spot: Spot, needs: Needs, candidates: _Set) -> _Set | None:
    """The smallest set on one node; None when nobody has to leave there, or not all would be enough."""
    short = shortage(spot, needs)
    helping = [each for each in candidates if any(each.freed.get(resource) for resource in short)]
    if not short or not _enough(helping, short):
        return None
    return _smallest(helping, short) if len(helping) <= _SEARCHED else _needed(helping, short)


def _smallest(candidates: _Set, short: Amounts) -> _Set:
    for size in range(1, len(candidates)):
        for chosen in combinations(candidates, size):
            if _enough(chosen, short):
                return chosen
    return candidates


def _needed(candidates: _Set, short: Amounts) -> _Set:
    """In order until it is enough; then everybody without whom it still is goes back, the last in order first."""
    chosen: list[_Candidate] = []
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
    for resource, number in short.items():
        for each in chosen:
            number -= each.freed.get(resource, 0)
        if number > 0:
            return False
    return True
