"""Nodes and the resources that pods take of them, updated pod by pod.

Every pod that has a node and has not terminated counts, whether or not it belongs to a Model. The sums are kept up to
date with each change, so a plan does not add up all pods of the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from corral_core.base.quantities import ResourceAmounts
from corral_core.planning.dra_offers import DevicePool, with_pools
from corral_core.planning.gpus.offers import with_reported_memory
from corral_core.planning.node import Node
from corral_core.planning.snapshot import NodeState


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What one pod or claim takes of its node, memory of shared GPUs included; ``node`` is empty until it is known."""

    node: str
    requests: ResourceAmounts


class NodeUsage:
    """Pods may arrive before their node and leave after it."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._pools: dict[str, list[DevicePool]] = {}
        self._gpu_memory: dict[str, dict[str, int]] = {}
        self._requested: dict[str, dict[str, int]] = {}
        self._states: dict[str, NodeState] = {}
        self._sorted: tuple[NodeState, ...] | None = None

    def set_node(self, name: str, node: Node | None) -> None:
        """Record the present state of a node, None if it is deleted."""
        if node is None:
            self._nodes.pop(name, None)
            self._gpu_memory.pop(name, None)
        else:
            self._nodes[name] = node
        self._invalidate(name)

    def set_gpu_memory(self, name: str, resource: str, memory: int) -> bool:
        """Record what a runner reported of the GPUs of a node, in bytes; return whether that is new.

        The node's labels and the declared pools are believed first (``with_reported_memory``). It is forgotten with
        the node, whose successor of the same name may have other GPUs.
        """
        if name not in self._nodes or self._gpu_memory.get(name, {}).get(resource) == memory:
            return False
        self._gpu_memory.setdefault(name, {})[resource] = memory
        self._invalidate(name)
        return True

    def update_pool(self, before: DevicePool | None, after: DevicePool | None) -> None:
        """Record the change of the devices that a driver publishes for a node."""
        if before is not None:
            self._pools[before.node].remove(before)
            self._invalidate(before.node)
        if after is not None:
            self._pools.setdefault(after.node, []).append(after)
            self._invalidate(after.node)

    def update_pod(self, before: PodUsage | None, after: PodUsage | None) -> None:
        """Record the change of one pod; None means that the pod does not exist."""
        if before == after:
            return
        for usage, sign in ((before, -1), (after, 1)):
            if usage is not None and usage.node:
                self._add(usage, sign)

    def states(self) -> tuple[NodeState, ...]:
        """Return all nodes with what is requested of them, sorted by name."""
        if self._sorted is None:
            self._sorted = tuple(self._state(name) for name in sorted(self._nodes))
        return self._sorted

    def is_alive(self, name: str) -> bool:
        """Return whether the node exists and its kubelet reports."""
        node = self._nodes.get(name)
        return node is not None and not node.unreachable

    def gpus(self) -> int:
        """Return the number of GPUs of all nodes in their best state; of a GPU with MIG each slice counts."""
        return sum(offer.devices for state in self.states() for offer in state.node.gpus)

    def _add(self, usage: PodUsage, sign: int) -> None:
        requested = self._requested.setdefault(usage.node, {})
        for resource, number in usage.requests.items():
            rest = requested.get(resource, 0) + sign * number
            if rest:
                requested[resource] = rest
            else:
                requested.pop(resource, None)
        if not requested:
            del self._requested[usage.node]
        self._invalidate(usage.node)

    def _state(self, name: str) -> NodeState:
        if name not in self._states:
            node = self._nodes[name]
            if reported := self._gpu_memory.get(name):
                node = replace(node, gpus=with_reported_memory(node.gpus, node.labels, reported))
            node = with_pools(node, self._pools.get(name, ()))
            self._states[name] = NodeState(node, dict(self._requested.get(name, {})))
        return self._states[name]

    def _invalidate(self, name: str) -> None:
        self._states.pop(name, None)
        self._sorted = None
