"""Whether a node can take a pod, and the reason for people when none can.

Two questions. *Now*: is the node usable, do its labels and taints allow the pod, is there room. *Ever*: would it, empty
and in its best state; taints that the cluster sets for a while (not ready, under pressure) are then not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from corral_core.node import Needs, Node, Taint
from corral_core.quantities import Amounts, describe


def admits(node: Node, needs: Needs) -> bool:
    """Whether the node takes such pods at present; room is another matter."""
    return node.usable and matches(node, needs) and not _barriers(node.taints, needs)


def fits(room: Amounts, needs: Needs) -> bool:
    for resource, number in needs.amounts:  # noqa: SIM110  asked most often of all, and all() takes three times as long
        if room.get(resource, 0) < number:
            return False
    return True


def ever(node: Node, needs: Needs) -> bool:
    """Whether the node could take the pod if nothing else ran there."""
    return fits(node.best, needs) and matches(node, needs) and not _lasting(node, needs)


def matches(node: Node, needs: Needs) -> bool:
    """Whether the node has the labels that the pod requires."""
    if any(node.labels.get(key) != value for key, value in needs.selector):
        return False
    return needs.affinity is None or any(term.holds(node.name, node.labels) for term in needs.affinity)


def _barriers(taints: Iterable[Taint], needs: Needs) -> list[Taint]:
    return [taint for taint in taints if not any(each.covers(taint) for each in needs.tolerations)]


def _lasting(node: Node, needs: Needs) -> list[Taint]:
    return _barriers((taint for taint in node.taints if not taint.passing), needs)


def choose(nodes: Collection[Node], ways: Sequence[Needs], *, held: Needs | None = None) -> int:
    """Which of the ``ways`` to run, the best first, is taken: its index.

    The first that some node could ever take; else the last, which asks for least. The way that is ``held``, which is
    that of a pod that runs, is kept while some node could take it: nobody is started anew for a better one. Without
    nodes nothing is known, and the best is taken where none is held.
    """
    kept = [index for index, needs in enumerate(ways) if needs == held]
    if not nodes:
        return next(iter(kept), 0)
    hopeful = (index for index in (*kept, *range(len(ways))) if any(ever(node, ways[index]) for node in nodes))
    return next(hopeful, len(ways) - 1)


class Verdicts:
    """Whether there is any hope on these nodes, asked once for equal needs. Without nodes nothing is known."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._known: dict[Needs, str | None] = {}

    def why_never(self, needs: Needs | None) -> str | None:
        """Why no node can ever take such a pod; None: one can."""
        if needs is None or not self._nodes:
            return None
        if needs not in self._known:
            hope = any(ever(node, needs) for node in self._nodes)
            self._known[needs] = None if hope else why_never(self._nodes, needs)
        return self._known[needs]


def why_never(nodes: Sequence[Node], needs: Needs) -> str:
    """For people: why not one of these nodes can ever take the pod."""
    fitting = [node for node in nodes if matches(node, needs) and not _lasting(node, needs)]
    largest = {node.name: node.best for node in fitting}
    said = _shortage(largest, needs, most="the most that any node has is") if largest else _asks(needs)
    return _joined([said, *_others(nodes, needs, passing=False)])


def why_not_now(rooms: Collection[tuple[Node, Amounts]], needs: Needs) -> str:
    """For people: why none of these nodes, with what is free on each, takes the pod at present."""
    admitting = {node.name: free for node, free in rooms if admits(node, needs)}
    said = _shortage(admitting, needs, most="the most that is free is") if admitting else _asks(needs)
    return _joined([said, *_others([node for node, _ in rooms], needs, passing=True)])


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part)


def _asks(needs: Needs) -> str:
    wanted = [f"{key}={value}" for key, value in needs.selector]
    if wanted:
        return f"needs a node with {', '.join(wanted)}"
    return "no node is fit for it"


def _shortage(rooms: Mapping[str, Amounts], needs: Needs, *, most: str) -> str:
    """``needs 3.2 GiB memory; the most that is free is 1.1 GiB memory on node-b``, for what is missing most often."""
    missing = {
        resource: sum(1 for free in rooms.values() if free.get(resource, 0) < number)
        for resource, number in needs.amounts
    }
    short = [(resource, number) for resource, number in needs.amounts if missing[resource] == max(missing.values())]
    parts = []
    for resource, number in short:
        best = max(sorted(rooms), key=lambda name: rooms[name].get(resource, 0))
        there = max(rooms[best].get(resource, 0), 0)
        if there:
            parts.append(f"needs {describe(resource, number)}; {most} {describe(resource, there)} on {best}")
        else:
            parts.append(f"needs {describe(resource, number)}, of which {_NONE[most]}")
    return "; ".join(parts)


_NONE = {"the most that any node has is": "no node has any", "the most that is free is": "none is free"}


def _others(nodes: Sequence[Node], needs: Needs, *, passing: bool) -> list[str]:
    """How many nodes are out of the question, and why; each is counted once."""
    reasons: list[tuple[str, Callable[[Node], bool]]] = [
        ("not ready", lambda node: passing and not node.ready),
        ("cordoned", lambda node: passing and node.cordoned),
        ("without the labels that it requires", lambda node: not matches(node, needs)),
        ("tainted", lambda node: bool(_barriers(node.taints, needs) if passing else _lasting(node, needs))),
    ]
    counts = dict.fromkeys((word for word, _ in reasons), 0)
    for node in nodes:
        word = next((word for word, is_so in reasons if is_so(node)), None)
        if word is not None:
            counts[word] += 1
    return [f"{count} {'node is' if count == 1 else 'nodes are'} {word}" for word, count in counts.items() if count]
