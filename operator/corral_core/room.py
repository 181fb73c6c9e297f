"""The room on the nodes while a plan is made: what is free now, what will be once those who leave are gone.

``later`` is ``now`` and what is being freed, less what is promised to those who wait for it. A pod may start on a node
only where it fits in both: so nobody takes what an older request waits for, and no room is counted twice. Where nothing
is known of nodes, or of what a pod needs, everything fits (ANYWHERE).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corral_core.fit import admits, fits, why_not_now
from corral_core.node import Needs, Node
from corral_core.quantities import CPU, MEMORY
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


class Room:
    def __init__(self, nodes: Sequence[NodeState]) -> None:
        self.spots = {state.node.name: _spot(state) for state in nodes}
        self._admitting: dict[Needs, list[Spot]] = {}
        self._full: set[Needs] = set()

    def frees(self, replicas: Iterable[Replica]) -> None:
        """These are on their way out, or told to be."""
        for replica in replicas:
            if replica.node in self.spots:
                _add(self.spots[replica.node].later, replica.holds.items(), 1)

    def could_free(self, replicas: Iterable[Replica]) -> None:
        """These may be asked to leave at some time, if not now."""
        for replica in replicas:
            if replica.node in self.spots:
                _add(self.spots[replica.node].most, replica.holds.items(), 1)

    def now(self, needs: Needs | None, preferred: str) -> str | None:
        """Where the pod can start at once; None: nowhere. Of several nodes the emptiest, as the scheduler has it."""
        if needs is None or not self.spots:
            return ANYWHERE
        if needs in self._full:
            return None
        free = [spot for spot in self._fit(needs) if fits(spot.now, needs)]
        if not free:
            self._full.add(needs)  # what is free now only becomes less while a plan is made
        found = [spot for spot in free if fits(spot.later, needs)]
        return _chosen(found, preferred) if found else None

    def later(self, needs: Needs | None, preferred: str) -> str | None:
        """Where the pod can start when those who leave are gone; None: nowhere."""
        if needs is None or not self.spots:
            return ANYWHERE
        found = [spot for spot in self._fit(needs) if fits(spot.later, needs)]
        return _chosen(found, preferred) if found else None

    def attainable(self, needs: Needs) -> list[Spot]:
        """The nodes on which the pod would fit if everybody left who may be asked to; the roomiest first."""
        found = [spot for spot in self._fit(needs) if fits(spot.most, needs)]
        return sorted(found, key=lambda spot: (-spot.most.get(MEMORY, 0), spot.node.name))

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

    def _fit(self, needs: Needs) -> list[Spot]:
        if needs not in self._admitting:
            self._admitting[needs] = [spot for spot in self.spots.values() if admits(spot.node, needs)]
        return self._admitting[needs]


def shortage(spot: Spot, needs: Needs) -> dict[str, int]:
    """What is missing for the pod on this node, also when those who leave are gone."""
    missing = {resource: number - spot.later.get(resource, 0) for resource, number in needs.amounts}
    return {resource: number for resource, number in missing.items() if number > 0}


def _spot(state: NodeState) -> Spot:
    free = dict(state.node.allocatable)
    _add(free, state.taken.items(), -1)
    return Spot(state.node, free, dict(free), dict(free))


def _add(amounts: dict[str, int], others: Iterable[tuple[str, int]], sign: int) -> None:
    for resource, number in others:
        amounts[resource] = amounts.get(resource, 0) + sign * number


def _chosen(spots: Sequence[Spot], preferred: str) -> str:
    if any(spot.node.name == preferred for spot in spots):
        return preferred
    return max(spots, key=lambda spot: (_emptiness(spot), spot.node.name)).node.name


def _emptiness(spot: Spot) -> float:
    """The free shares of CPU and memory together: the scheduler's own measure where nobody set another."""
    return sum(spot.later.get(name, 0) / max(spot.node.allocatable.get(name, 0), 1) for name in (CPU, MEMORY))
