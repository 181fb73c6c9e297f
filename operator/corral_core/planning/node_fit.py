"""Feasibility of a pod on a node, with readable reasons, after the scheduler's filter plugins.

- *Now*: the node is schedulable, its labels and taints admit the pod (NodeUnschedulable, NodeAffinity, TaintToleration)
  and its free resources suffice (NodeResourcesFit).
- The memory of shared GPUs is a resource that only nodes with such GPUs limit.
- *Ever*: the same for the empty node in its best state, without taints that the cluster sets temporarily (not ready,
  under pressure).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from corral_core.base.quantities import GPU_MEMORY, ResourceAmounts, format_amount
from corral_core.planning.node import Node, PodRequirements, Taint


def admits_now(node: Node, requirements: PodRequirements) -> bool:
    """Whether the node admits the pod at present, apart from its free resources."""
    return node.schedulable and matches_labels(node, requirements) and not _untolerated(node.taints, requirements)


def fits(free: ResourceAmounts, requirements: PodRequirements) -> bool:
    for resource, number in requirements.requests:
        if free.get(resource, 0) < number:
            return False
    for resource, number in requirements.gpu_needs:  # noqa: SIM110  the hottest check; all() is three times slower
        if free.get(resource, number) < number:
            return False
    return True


def subtract(free: dict[str, int], requirements: PodRequirements) -> None:
    """Take what the pod needs from free amounts, in which it fits."""
    for resource, number in requirements.requests:
        free[resource] = free.get(resource, 0) - number
    for resource, number in requirements.gpu_needs:
        if resource in free and resource.endswith(GPU_MEMORY):
            free[resource] -= number


def could_ever_run(node: Node, requirements: PodRequirements) -> bool:
    """Whether the node could run the pod if no other pod ran there."""
    return fits(node.max_allocatable, requirements) and _admits_permanently(node, requirements)


def matches_labels(node: Node, requirements: PodRequirements) -> bool:
    """Whether the node has the labels that the pod requires (node selector and affinity)."""
    if any(node.labels.get(key) != value for key, value in requirements.node_selector):
        return False
    return requirements.affinity is None or any(term.matches(node.name, node.labels) for term in requirements.affinity)


def _admits_permanently(node: Node, requirements: PodRequirements) -> bool:
    return matches_labels(node, requirements) and not _untolerated_permanent(node, requirements)


def _untolerated(taints: Iterable[Taint], requirements: PodRequirements) -> list[Taint]:
    return [taint for taint in taints if not any(each.tolerates(taint) for each in requirements.tolerations)]


def _untolerated_permanent(node: Node, requirements: PodRequirements) -> list[Taint]:
    return _untolerated((taint for taint in node.taints if not taint.temporary), requirements)


def choose_feasible(
    nodes: Collection[Node], alternatives: Sequence[PodRequirements], *, current: PodRequirements | None = None
) -> int:
    """Choose among alternative requirements, best first, and return the index.

    The first that some node could ever run, else the last, which requests least. The ``current`` one of a running pod
    is kept while some node could run it, so that a pod is not restarted for a better alternative. Without nodes the
    current one is kept, else the best is chosen.
    """
    kept = [index for index, requirements in enumerate(alternatives) if requirements == current]
    if not nodes:
        return next(iter(kept), 0)
    feasible = (
        index
        for index in (*kept, *range(len(alternatives)))
        if any(could_ever_run(node, alternatives[index]) for node in nodes)
    )
    return next(feasible, len(alternatives) - 1)


class FeasibilityCache:
    """Caches whether any of the nodes could ever run a pod, by requirements. Without nodes every pod is feasible."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._known: dict[PodRequirements, str | None] = {}

    def reason_never_fits(self, requirements: PodRequirements | None) -> str | None:
        """Explain why no node can ever run the pod; None if one can."""
        if requirements is None or not self._nodes:
            return None
        if requirements not in self._known:
            feasible = any(could_ever_run(node, requirements) for node in self._nodes)
            self._known[requirements] = None if feasible else reason_never_fits(self._nodes, requirements)
        return self._known[requirements]


def reason_never_fits(nodes: Sequence[Node], requirements: PodRequirements) -> str:
    """Explain why none of the nodes can ever run the pod."""
    fitting = [node for node in nodes if _admits_permanently(node, requirements)]
    largest = {node.name: node.max_allocatable for node in fitting}
    reason = (
        _describe_shortage(largest, requirements, label="the most that any node has is")
        if largest
        else _describe_selector(requirements)
    )
    return _join([reason, *_describe_excluded(nodes, requirements, temporary=False)])


def reason_not_now(free_by_node: Collection[tuple[Node, ResourceAmounts]], requirements: PodRequirements) -> str:
    """Explain why none of the nodes, with these free resources, can run the pod at present."""
    admitting = {node.name: free for node, free in free_by_node if admits_now(node, requirements)}
    reason = (
        _describe_shortage(admitting, requirements, label="the most that is free is")
        if admitting
        else _describe_selector(requirements)
    )
    return _join([reason, *_describe_excluded([node for node, _ in free_by_node], requirements, temporary=True)])


def _join(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part)


def _describe_selector(requirements: PodRequirements) -> str:
    labels = [f"{key}={value}" for key, value in requirements.node_selector]
    if labels:
        return f"needs a node with {', '.join(labels)}"
    return "no suitable node"


def _describe_shortage(
    free_by_node: Mapping[str, ResourceAmounts], requirements: PodRequirements, *, label: str
) -> str:
    """Describe the resources that most nodes lack: ``needs 3.2 GiB memory; the most that is free is 1.1 GiB ...``.

    The memory of shared GPUs is described as well, as it is what keeps the pod from the units that such nodes have.
    """
    needs = [(resource, number, 0) for resource, number in requirements.requests]
    needs += [(resource, number, number) for resource, number in requirements.gpu_needs]
    missing = {
        resource: sum(1 for free in free_by_node.values() if free.get(resource, unlisted) < number)
        for resource, number, unlisted in needs
    }
    most = max(missing.values(), default=0)
    lacking = [each for each in needs if missing[each[0]] == most or (each[2] and missing[each[0]])]
    short_of_memory = any(unlisted for _, _, unlisted in lacking)
    parts = []
    for resource, number, _ in lacking:
        best_node = max(sorted(free_by_node), key=lambda name: free_by_node[name].get(resource, 0))
        available = max(free_by_node[best_node].get(resource, 0), 0)
        if available >= number and short_of_memory:
            continue
        if available:
            found = f"{format_amount(resource, available)} on {best_node}"
            parts.append(f"needs {format_amount(resource, number)}; {label} {found}")
        else:
            parts.append(f"needs {format_amount(resource, number)}, of which {_NONE[label]}")
    return "; ".join(parts)


_NONE = {"the most that any node has is": "no node has any", "the most that is free is": "none is free"}


def _describe_excluded(nodes: Sequence[Node], requirements: PodRequirements, *, temporary: bool) -> list[str]:
    """Count the excluded nodes by the first reason that applies."""
    reasons: list[tuple[str, Callable[[Node], bool]]] = [
        ("not ready", lambda node: temporary and not node.ready),
        ("cordoned", lambda node: temporary and node.cordoned),
        ("without the labels that it requires", lambda node: not matches_labels(node, requirements)),
        (
            "tainted",
            lambda node: bool(
                _untolerated(node.taints, requirements) if temporary else _untolerated_permanent(node, requirements)
            ),
        ),
    ]
    counts = dict.fromkeys((reason for reason, _ in reasons), 0)
    for node in nodes:
        reason = next((reason for reason, applies in reasons if applies(node)), None)
        if reason is not None:
            counts[reason] += 1
    return [f"{count} {'node is' if count == 1 else 'nodes are'} {reason}" for reason, count in counts.items() if count]
