"""The nodes and what is taken of them, kept up to date pod by pod: a plan never adds up all pods of the cluster.

Every pod counts that has a node and has not ended, whoever owns it. Until both nodes and pods have been listed nothing
is said of nodes at all, and the planner counts Models only.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.node import Node
from corral_core.quantities import Amounts
from corral_core.snapshot import NodeState

_GPU = "/gpu"
"""How the names of the resources end that vendors' GPUs have."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one pod takes of its node; nothing while it has none."""

    node: str
    amounts: Amounts


class NodeLedger:
    def __init__(self) -> None:
        self.known = False
        self._nodes: dict[str, Node] = {}
        self._taken: dict[str, dict[str, int]] = {}
        self._states: dict[str, NodeState] = {}
        self._whole: tuple[NodeState, ...] | None = None

    def set_node(self, name: str, node: Node | None) -> None:
        """As it is now; None: it is gone. Pods may be heard of before their node and after it."""
        if node is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = node
        self._forget(name)

    def pod(self, before: Held | None, after: Held | None) -> None:
        """One pod's change; None: it was not there, or is gone."""
        for held, sign in ((before, -1), (after, 1)):
            if held is not None and held.node:
                self._add(held, sign)

    def states(self) -> tuple[NodeState, ...]:
        """The planner's view, in the order of names; empty while nothing is known."""
        if not self.known:
            return ()
        if self._whole is None:
            self._whole = tuple(self._state(name) for name in sorted(self._nodes))
        return self._whole

    def alive(self, name: str) -> bool | None:
        """Whether the node is there and its kubelet is heard of; None while nothing is known of nodes."""
        if not self.known:
            return None
        node = self._nodes.get(name)
        return node is not None and not node.lost

    def gpus(self) -> int:
        """All GPUs of the nodes."""
        offers = (item for state in self.states() for item in state.node.allocatable.items())
        return sum(number for resource, number in offers if resource.endswith(_GPU))

    def _add(self, held: Held, sign: int) -> None:
        taken = self._taken.setdefault(held.node, {})
        for resource, number in held.amounts.items():
            left = taken.get(resource, 0) + sign * number
            if left:
                taken[resource] = left
            else:
                taken.pop(resource, None)
        if not taken:
            del self._taken[held.node]
        self._forget(held.node)

    def _state(self, name: str) -> NodeState:
        if name not in self._states:
            self._states[name] = NodeState(self._nodes[name], dict(self._taken.get(name, {})))
        return self._states[name]

    def _forget(self, name: str) -> None:
        self._states.pop(name, None)
        self._whole = None
