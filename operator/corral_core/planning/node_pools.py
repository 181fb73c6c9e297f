"""Node pools that an autoscaler can add nodes to, as the installation declares them.

An autoscaler adds a node for a pod that is Pending, so a Model that fits no present node gets its pod at once if it
fits a new node. Invariants:

- Present nodes come first: a new node is counted on when no present one can have room by evictions.
- The pods that wait for new nodes never need more of them than ``max_nodes`` allows.
- A node that has not all devices of its pool yet counts as one that is still to come, so a pod that waits for it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_core.planning.gpus.offers import GpuPool
from corral_core.planning.node import Node, PodRequirements
from corral_core.planning.node_fit import admits_now, fits, subtract


@dataclass(frozen=True, slots=True)
class NodePool:
    """``node`` is a new node of the pool. ``max_nodes`` counts the present ones too; None: no limit."""

    name: str
    node: Node
    max_nodes: int | None = None

    def nodes_left(self, nodes: Sequence[Node]) -> int | None:
        """Return how many nodes can be added to these; None without a limit."""
        if self.max_nodes is None:
            return None
        return max(self.max_nodes - sum(1 for node in nodes if self._has(node)), 0)

    def _has(self, node: Node) -> bool:
        """Whether the node is of the pool and has its devices."""
        devices = (item for item in self.node.max_allocatable.items() if "/" in item[0] and ":" not in item[0])
        return all(node.labels.get(key) == value for key, value in self.node.labels.items()) and all(
            node.max_allocatable.get(resource, 0) >= number for resource, number in devices
        )


@dataclass(frozen=True, slots=True)
class Pools:
    """Node pools that the installation declares: ``gpu`` tell the memory of GPUs, ``node`` can add nodes."""

    gpu: tuple[GpuPool, ...] = ()
    node: tuple[NodePool, ...] = ()


NO_POOLS = Pools()


class PoolCapacity:
    """Capacity of the nodes that the pools can add, during one plan."""

    def __init__(self, pools: Sequence[NodePool], nodes: Sequence[Node]) -> None:
        self._pools = pools
        self._left = {pool.name: pool.nodes_left(nodes) for pool in pools}
        self._added: dict[str, list[dict[str, int]]] = {pool.name: [] for pool in pools}

    def allocate(self, requirements: PodRequirements) -> str | None:
        """Allocate capacity of a new node to a pod; return the name of its pool, None if no pool has such a node."""
        for pool in self._pools:
            if not admits_now(pool.node, requirements) or not fits(pool.node.allocatable, requirements):
                continue
            added, left = self._added[pool.name], self._left[pool.name]
            free = next((each for each in added if fits(each, requirements)), None)
            if free is None and (left is None or len(added) < left):
                free = dict(pool.node.allocatable)
                added.append(free)
            if free is not None:
                subtract(free, requirements)
                return pool.name
        return None
