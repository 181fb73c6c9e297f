"""The room on the nodes while a plan is made: what is free now, what will be once those who leave are gone.

``later`` is ``now`` and what is being freed, less what is promised to those who wait for it. A pod may start on a node
only where it fits in both: so nobody takes what an older request waits for, and no room is counted twice. Where nothing
is known of nodes, or of what a pod needs, everything fits (ANYWHERE).

While a plan is made ``now`` only becomes less, and ``most`` stays. So what was found out for one pod is kept for all
with equal needs, and a plan for a thousand Models looks at each node a few times only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from corral_core.fit import admits, fits, why_not_now
from corral_core.node import Needs, Node
from corral_core.quantities import CPU, MEMORY, Amounts
from corral_core.snapshot import NodeState, Replica

ANYWHERE = ""
"""The place of a pod of which no node has to be thought."""


@dataclass(slots=True)
class Spot:
    """One node. ``most`` is what is free when all are gone who may ever be asked to leave."""

    node: Node
    now: dict[str, int]
    later: dict[str, int]
    most: dict[str, int]


class _Search:
    """The nodes for pods of equal needs: those with room now, the emptiest first, and those that were seen to have none
    later, which only a node that was freed since can change.
    """

    def __init__(self, spots: Sequence[Spot], needs: Needs) -> None:
        self.attainable = {spot.node.name: spot for spot in spots if fits(spot.most, needs)}
        self._needs = needs
        free = (spot for spot in spots if fits(spot.now, needs))
        self._emptiest = [(-_emptiness(spot.now, spot.node), spot.node.name, spot) for spot in free]
        heapify(self._emptiest)
        self._soon = {spot.node.name: spot for spot in spots if fits(spot.later, needs)}

    def now(self) -> Spot | None:
        aside = []
        found = None
        while self._emptiest and found is None:
            known, name, spot = heappop(self._emptiest)
            if not fits(spot.now, self._needs):
                continue
            emptiness = -_emptiness(spot.now, spot.node)
            if emptiness > known:
                heappush(self._emptiest, (emptiness, name, spot))
                continue
            aside.append((known, name, spot))
            found = spot if fits(spot.later, self._needs) else None
        for each in aside:
            heappush(self._emptiest, each)
        return found

    def later(self) -> Spot | None:
        self._soon = {name: spot for name, spot in self._soon.items() if fits(spot.later, self._needs)}
        return min(self._soon.values(), key=_fullness, default=None)

    def freed(self, spot: Spot) -> None:
        if spot.node.name not in self._soon and fits(spot.later, self._needs):
            self._soon[spot.node.name] = spot


class Room:
    def __init__(self, nodes: Sequence[NodeState]) -> None:
        self.spots = {state.node.name: _spot(state) for state in nodes}
        self._searches: dict[Needs, _Search] = {}
        self._admitting: dict[tuple[object, ...], list[Spot]] = {}

    def frees(self, replicas: Iterable[Replica]) -> None:
        """These are on their way out, or told to be."""
        for replica in replicas:
            spot = self.spots.get(replica.node)
            if spot is not None:
                _add(spot.later, replica.holds.items(), 1)
                for search in self._searches.values():
                    search.freed(spot)

    def could_free(self, replicas: Iterable[Replica]) -> None:
        """These may be asked to leave at some time, if not now. To be told before anything is asked."""
        for replica in replicas:
            if replica.node in self.spots:
                _add(self.spots[replica.node].most, replica.holds.items(), 1)

    def now(self, needs: Needs | None, preferred: str) -> str | None:
        """Where the pod can start at once; None: nowhere. Of several nodes the emptiest, as the scheduler has it."""
        if needs is None or not self.spots:
            return ANYWHERE
        wished = self.attainable(needs).get(preferred)
        if wished is not None and fits(wished.now, needs) and fits(wished.later, needs):
            return preferred
        found = self._search(needs).now()
        return found.node.name if found is not None else None

    def later(self, needs: Needs | None, preferred: str) -> str | None:
        """Where the pod can start when those who leave are gone; None: nowhere."""
        if needs is None or not self.spots:
            return ANYWHERE
        wished = self.attainable(needs).get(preferred)
        if wished is not None and fits(wished.later, needs):
            return preferred
        found = self._search(needs).later()
        return found.node.name if found is not None else None

    def attainable(self, needs: Needs) -> dict[str, Spot]:
        """The nodes on which the pod would fit if everybody left who may be asked to."""
        return self._search(needs).attainable

    def take(self, place: str, needs: Needs | None) -> None:
        """The pod starts there."""
        if needs is not None and place in self.spots:
            _add(self.spots[place].now, needs.amounts, -1)
            self.promise(place, needs)

    def promise(self, place: str, needs: Needs | None) -> None:
        """The pod waits for this node: nobody younger gets what it needs there."""
        if needs is not None and place in self.spots:
            _add(self.spots[place].later, needs.amounts, -1)

    def why_not(self, needs: Needs) -> str:
        """For people."""
        return why_not_now([(spot.node, spot.now) for spot in self.spots.values()], needs)

    def _search(self, needs: Needs) -> _Search:
        if needs not in self._searches:
            self._searches[needs] = _Search(self._fit(needs), needs)
        return self._searches[needs]

    def _fit(self, needs: Needs) -> list[Spot]:
        """The nodes that take such pods: many needs differ only in their amounts."""
        kind = needs.selector, needs.tolerations, needs.affinity
        if kind not in self._admitting:
            self._admitting[kind] = [spot for spot in self.spots.values() if admits(spot.node, needs)]
        return self._admitting[kind]


def shortage(spot: Spot, needs: Needs) -> dict[str, int]:
    """What is missing for the pod on this node, also when those who leave are gone."""
    short = {}
    for resource, number in needs.amounts:
        missing = number - spot.later.get(resource, 0)
        if missing > 0:
            short[resource] = missing
    return short


def _spot(state: NodeState) -> Spot:
    free = dict(state.node.allocatable)
    _add(free, state.taken.items(), -1)
    return Spot(state.node, free, dict(free), dict(free))


def _add(amounts: dict[str, int], others: Iterable[tuple[str, int]], sign: int) -> None:
    for resource, number in others:
        amounts[resource] = amounts.get(resource, 0) + sign * number


def _emptiness(free: Amounts, node: Node) -> float:
    """The free shares of CPU and memory together: the scheduler's own measure where nobody set another."""
    return sum(free.get(name, 0) / max(node.allocatable.get(name, 0), 1) for name in (CPU, MEMORY))


def _fullness(spot: Spot) -> tuple[float, str]:
    return -_emptiness(spot.later, spot.node), spot.node.name
