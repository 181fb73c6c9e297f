"""Node capacity during a plan: free now, free once terminating pods are gone, and reclaimable by eviction.

- ``free_later`` is ``free`` plus what terminating pods release, minus reservations.
- A pod starts only on a node where it fits into both, so it takes no capacity that is reserved for an older request,
  and no capacity is counted twice.
- Without nodes, or without a pod's requirements, every pod fits (ANY_NODE).
- The memory of shared GPUs is counted like other resources, together with their units.
- During a plan ``free`` only decreases and ``reclaimable`` is constant, so searches are cached by pod requirements and
  a plan for a thousand Models looks at each node only a few times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from corral_core.base.quantities import CPU, GPU_MEMORY, MEMORY, ResourceAmounts
from corral_core.planning.gpus.offers import unknown_memory
from corral_core.planning.node import Node, PodRequirements
from corral_core.planning.node_fit import admits_now, fits, reason_not_now
from corral_core.planning.snapshot import NodeState, Replica

ANY_NODE = ""
"""Placement of a pod for which nodes are not considered."""


@dataclass(slots=True)
class NodeCapacity:
    """One node. ``reclaimable`` is what is free if all Models that may ever be evicted are gone."""

    node: Node
    free: dict[str, int]
    free_later: dict[str, int]
    reclaimable: dict[str, int]


class _NodeSearch:
    """Finds nodes for pods with equal requirements: those with capacity now, least utilized first, and those with
    capacity later. A node leaves the second set when it is full and returns when pods release capacity.
    """

    def __init__(self, nodes: Sequence[NodeCapacity], requirements: PodRequirements) -> None:
        self.attainable = {one.node.name: one for one in nodes if fits(one.reclaimable, requirements)}
        self._requirements = requirements
        free = (one for one in nodes if fits(one.free, requirements))
        self._least_utilized = [(-_free_score(one.free, one.node), one.node.name, one) for one in free]
        heapify(self._least_utilized)
        self._later = {one.node.name: one for one in nodes if fits(one.free_later, requirements)}

    def now(self) -> NodeCapacity | None:
        skipped = []
        found = None
        while self._least_utilized and found is None:
            known, name, capacity = heappop(self._least_utilized)
            if not fits(capacity.free, self._requirements):
                continue
            score = -_free_score(capacity.free, capacity.node)
            if score > known:
                heappush(self._least_utilized, (score, name, capacity))
                continue
            skipped.append((known, name, capacity))
            found = capacity if fits(capacity.free_later, self._requirements) else None
        for each in skipped:
            heappush(self._least_utilized, each)
        return found

    def later(self) -> NodeCapacity | None:
        still = {name: one for name, one in self._later.items() if fits(one.free_later, self._requirements)}
        self._later = still
        return min(self._later.values(), key=_least_utilized_later, default=None)

    def add_released(self, capacity: NodeCapacity) -> None:
        if capacity.node.name not in self._later and fits(capacity.free_later, self._requirements):
            self._later[capacity.node.name] = capacity


class ClusterCapacity:
    """Capacity of all nodes during one plan; ``nodes`` is by name."""

    def __init__(self, nodes: Sequence[NodeState]) -> None:
        self.nodes = {state.node.name: _node_capacity(state) for state in nodes}
        self._searches: dict[PodRequirements, _NodeSearch] = {}
        self._admitting: dict[tuple[object, ...], list[NodeCapacity]] = {}

    def release(self, replicas: Iterable[Replica]) -> None:
        """Count the replicas' requests as free later; they terminate or are scaled down."""
        for replica in replicas:
            capacity = self.nodes.get(replica.node)
            if capacity is not None:
                _add(capacity.free_later, replica.requests.items(), 1)
                for search in self._searches.values():
                    search.add_released(capacity)

    def mark_reclaimable(self, replicas: Iterable[Replica]) -> None:
        """Count the replicas' requests as reclaimable; call it before the first search."""
        for replica in replicas:
            if replica.node in self.nodes:
                _add(self.nodes[replica.node].reclaimable, replica.requests.items(), 1)

    def find_now(self, requirements: PodRequirements | None, preferred: str) -> str | None:
        """Find the node on which the pod can start now, the least utilized of several; None if there is none."""
        if requirements is None or not self.nodes:
            return ANY_NODE
        node = self.attainable_nodes(requirements).get(preferred)
        if node is not None and fits(node.free, requirements) and fits(node.free_later, requirements):
            return preferred
        found = self._search(requirements).now()
        return found.node.name if found is not None else None

    def find_later(self, requirements: PodRequirements | None, preferred: str) -> str | None:
        """Find the node on which the pod can start once terminating pods are gone; None if there is none."""
        if requirements is None or not self.nodes:
            return ANY_NODE
        node = self.attainable_nodes(requirements).get(preferred)
        if node is not None and fits(node.free_later, requirements):
            return preferred
        found = self._search(requirements).later()
        return found.node.name if found is not None else None

    def attainable_nodes(self, requirements: PodRequirements) -> dict[str, NodeCapacity]:
        """Return the nodes on which the pod fits if all evictable Models are gone."""
        return self._search(requirements).attainable

    def allocate(self, node: str, requirements: PodRequirements | None) -> None:
        """Allocate capacity to a pod that starts on the node."""
        if requirements is not None and node in self.nodes:
            _add(self.nodes[node].free, requirements.requests, -1)
            _add(self.nodes[node].free, requirements.gpu_needs, -1)
            self.reserve(node, requirements)

    def reserve(self, node: str, requirements: PodRequirements | None) -> None:
        """Reserve capacity for a pod that waits for the node."""
        if requirements is not None and node in self.nodes:
            _add(self.nodes[node].free_later, requirements.requests, -1)
            _add(self.nodes[node].free_later, requirements.gpu_needs, -1)

    def reason_not_now(self, requirements: PodRequirements) -> str:
        """Explain why no node can run the pod at present."""
        return reason_not_now([(capacity.node, capacity.free) for capacity in self.nodes.values()], requirements)

    def _search(self, requirements: PodRequirements) -> _NodeSearch:
        if requirements not in self._searches:
            self._searches[requirements] = _NodeSearch(self._admitting_nodes(requirements), requirements)
        return self._searches[requirements]

    def _admitting_nodes(self, requirements: PodRequirements) -> list[NodeCapacity]:
        """Return the nodes that admit the pod; cached without amounts, in which most requirements differ."""
        key = requirements.node_selector, requirements.tolerations, requirements.affinity
        if key not in self._admitting:
            self._admitting[key] = [one for one in self.nodes.values() if admits_now(one.node, requirements)]
        return self._admitting[key]


def shortage(capacity: NodeCapacity, requirements: PodRequirements) -> dict[str, int]:
    """Return the resources that the node lacks for the pod even when terminating pods are gone."""
    short = {}
    for resource, number in requirements.requests:
        missing = number - capacity.free_later.get(resource, 0)
        if missing > 0:
            short[resource] = missing
    for resource, number in requirements.gpu_needs:
        missing = number - capacity.free_later.get(resource, number)
        if missing > 0:
            short[resource] = missing
    return short


def _node_capacity(state: NodeState) -> NodeCapacity:
    free = dict(state.node.allocatable)
    _add(free, state.requested.items(), -1)
    _add(free, unknown_memory(state.node.gpus, state.requested).items(), -1)
    return NodeCapacity(state.node, free, dict(free), dict(free))


def _add(amounts: dict[str, int], others: Iterable[tuple[str, int]], sign: int) -> None:
    """Add amounts. A node counts the memory of its GPUs only if they are shared; the limit of a unit is constant."""
    for resource, number in others:
        if ":" not in resource or (resource.endswith(GPU_MEMORY) and resource in amounts):
            amounts[resource] = amounts.get(resource, 0) + sign * number


def _free_score(free: ResourceAmounts, node: Node) -> float:
    """Sum the free fractions of CPU and memory, the scheduler's default score (NodeResourcesFit, LeastAllocated)."""
    return sum(free.get(name, 0) / max(node.allocatable.get(name, 0), 1) for name in (CPU, MEMORY))


def _least_utilized_later(capacity: NodeCapacity) -> tuple[float, str]:
    return -_free_score(capacity.free_later, capacity.node), capacity.node.name
