"""Victim selection: the cheapest set of loaded Models whose eviction frees enough capacity on one node.

Sets are compared over all nodes by: the number of newly evicted Models (so that draining victims stay victims), the
preferred node, the size of the set, eviction order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from corral_core.base.quantities import ResourceAmounts, sum_amounts
from corral_core.planning.capacity import ClusterCapacity, NodeCapacity, shortage
from corral_core.planning.node import PodRequirements
from corral_core.planning.snapshot import ModelState

_MAX_EXHAUSTIVE = 10
"""Models on one node up to which all sets are searched; with more, a minimal set is chosen greedily."""

VictimFilter = Callable[[ModelState], bool]


@dataclass(frozen=True, slots=True)
class VictimSet:
    """The Models to evict, in eviction order, and the node."""

    victims: tuple[ModelState, ...]
    node: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A Model, its rank in eviction order, and the resources that it frees on one node."""

    rank: int
    model: ModelState
    freed: ResourceAmounts


_Candidates = Sequence[_Candidate]
_Cost = tuple[int, bool, int, list[int]]


class VictimCandidates:
    """The Models that may be evicted, in eviction order."""

    def __init__(self, models: Sequence[ModelState]) -> None:
        self._models = {model.key: model for model in models}
        self._by_node: dict[str, list[_Candidate]] = {}
        for rank, model in enumerate(models):
            for node, freed in _freed(model).items():
                self._by_node.setdefault(node, []).append(_Candidate(rank, model, freed))

    def __iter__(self) -> Iterator[ModelState]:
        return iter(self._models.values())

    def remove(self, model: ModelState) -> None:
        """Remove a victim."""
        del self._models[model.key]
        for node in {replica.node for replica in model.live}:
            self._by_node[node] = [each for each in self._by_node[node] if each.model is not model]

    def first(self, allowed: VictimFilter) -> ModelState | None:
        return next((model for model in self._models.values() if allowed(model)), None)

    def on_nodes(self, preferred: str) -> Iterator[tuple[str, _Candidates]]:
        """Yield each node with its candidates: the preferred node first, then by the rank of the first candidate."""
        if preferred in self._by_node:
            yield preferred, self._by_node[preferred]
        yield from ((name, found) for name, found in self._by_node.items() if name != preferred)


def _freed(model: ModelState) -> dict[str, ResourceAmounts]:
    if len(model.live) == 1:
        return {model.live[0].node: model.live[0].requests}
    nodes = {replica.node for replica in model.live}
    return {node: sum_amounts(one.requests for one in model.live if one.node == node) for node in nodes}


def select_victims(
    cluster: ClusterCapacity,
    requirements: PodRequirements | None,
    preferred: str,
    *,
    candidates: VictimCandidates,
    allowed: VictimFilter,
    minimum: int,
) -> VictimSet | None:
    """Select victims for a pod among the ``allowed`` candidates; None if all of them are not enough.

    ``minimum`` is the least number of victims: 1 if the loaded-model limit is reached, else 0. For the limit alone the
    first candidate is selected, whatever its size.
    """
    if minimum or requirements is None or not cluster.nodes:
        node = cluster.find_later(requirements, preferred)
        if node is not None:
            first = candidates.first(allowed)
            return VictimSet((first,), node) if first is not None else None
    if requirements is None:
        return None
    return _cheapest(cluster, requirements, preferred, candidates=candidates, allowed=allowed)


def _cheapest(
    cluster: ClusterCapacity,
    requirements: PodRequirements,
    preferred: str,
    *,
    candidates: VictimCandidates,
    allowed: VictimFilter,
) -> VictimSet | None:
    attainable = cluster.attainable_nodes(requirements)
    best: tuple[_Cost, VictimSet] | None = None
    for name, local in candidates.on_nodes(preferred):
        capacity = attainable.get(name)
        if capacity is None or not local or (best is not None and _cannot_be_cheaper(local, best[0])):
            continue
        found = _select_on_node(capacity, requirements, [each for each in local if allowed(each.model)])
        if found is None:
            continue
        newly_evicted = sum(1 for each in found if not each.model.draining)
        cost = newly_evicted, name != preferred, len(found), [each.rank for each in found]
        if best is None or cost < best[0]:
            best = cost, VictimSet(tuple(each.model for each in found), name)
    return best[1] if best else None


def _cannot_be_cheaper(local: _Candidates, best: _Cost) -> bool:
    """Whether no set of these candidates can be cheaper; draining ones come first in eviction order."""
    newly_evicted, _, size, ranks = best
    return newly_evicted == size == 1 and not local[0].model.draining and local[0].rank > ranks[0]


def _select_on_node(
    capacity: NodeCapacity, requirements: PodRequirements, candidates: _Candidates
) -> _Candidates | None:
    """Select a set on one node; None if no eviction is needed there, or all candidates are not enough."""
    missing = shortage(capacity, requirements)
    useful = [each for each in candidates if any(each.freed.get(resource) for resource in missing)]
    if not missing or not _is_enough(useful, missing):
        return None
    return _smallest_set(useful, missing) if len(useful) <= _MAX_EXHAUSTIVE else _greedy_set(useful, missing)


def _smallest_set(candidates: _Candidates, missing: ResourceAmounts) -> _Candidates:
    for size in range(1, len(candidates)):
        for chosen in combinations(candidates, size):
            if _is_enough(chosen, missing):
                return chosen
    return candidates


def _greedy_set(candidates: _Candidates, missing: ResourceAmounts) -> _Candidates:
    """Add candidates in order until they are enough, then drop those that are not needed, last first."""
    chosen: list[_Candidate] = []
    for each in candidates:
        chosen.append(each)
        if _is_enough(chosen, missing):
            break
    for each in reversed(tuple(chosen)):
        without = [other for other in chosen if other is not each]
        if _is_enough(without, missing):
            chosen = without
    return chosen


def _is_enough(chosen: _Candidates, missing: ResourceAmounts) -> bool:
    for resource, number in missing.items():
        for each in chosen:
            number -= each.freed.get(resource, 0)
        if number > 0:
            return False
    return True
