"""Placement of a puller, which may decide where the runners of its Model can run.

- A claim of a node's local disk, and one of a zone, gets its volume where its first pod is scheduled, which is the
  puller. So while the claim has no volume, only nodes that could run a runner are chosen.
- A claim that a runner has mounted can be mounted on that node only, unless it is ReadWriteMany.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from corral_core.base.json_fields import JsonObject, get_object
from corral_core.model.model import Model
from corral_core.planning.node_fit import could_ever_run
from corral_operator.observe.cluster_state import ClusterState

MAX_NODES: Final = 500
"""Nodes that a pod's affinity names; with more suitable ones the scheduler is free."""
_HOST_NAME: Final = "kubernetes.io/hostname"


def puller_affinity(state: ClusterState, model: Model, *, bound: bool) -> JsonObject | None:
    """Return the affinity of the puller, None for that of the Model. ``bound``: the claim has a volume."""
    if not model.spec.cache.own_claim:
        return None
    pods = [pod for pod in state.pods.of_model(model.key) if pod.scheduled and not pod.finished]
    if pods and "ReadWriteMany" not in model.spec.cache.access_modes:
        return _required(model, {"matchFields": [_one_of("metadata.name", [pods[0].node])]})
    names = [] if bound else _suitable(state, model)
    return _required(model, {"matchExpressions": [_one_of(_HOST_NAME, names)]}) if names else None


def _suitable(state: ClusterState, model: Model) -> list[str]:
    """Return the host names of the nodes that could run a runner; none if that is every node, or too many."""
    requirements, nodes = state.requirements(model.key), [known.node for known in state.nodes()]
    if requirements is None:
        return []
    found = [node for node in nodes if _HOST_NAME in node.labels and could_ever_run(node, requirements)]
    return sorted(node.labels[_HOST_NAME] for node in found) if len(found) < len(nodes) <= MAX_NODES else []


def _required(model: Model, term: JsonObject) -> JsonObject:
    """Return the Model's affinity with this term for nodes, which includes what the Model requires of them."""
    affinity: JsonObject = model.spec.pod.affinity or {}
    nodes = {**get_object(affinity, "nodeAffinity"), _REQUIRED: {"nodeSelectorTerms": [term]}}
    return {**affinity, "nodeAffinity": nodes}


def _one_of(key: str, values: Sequence[str]) -> JsonObject:
    return {"key": key, "operator": "In", "values": list(values)}


_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
