"""Settings of node pools, as JSON lists: the memory of their GPUs, and pools that an autoscaler can add nodes to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from corral_core.base.errors import InvalidQuantity, InvalidSetting
from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.base.quantities import PODS, resource_amount
from corral_core.planning.gpus.offers import GpuPool
from corral_core.planning.node import parse_node
from corral_core.planning.node_pools import NodePool, Pools

_GPU_POOL: Final = '[{"selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"}, "memory": "23034Mi"}]'
_NODE_POOL: Final = (
    '[{"name": "l4", "labels": {"pool": "l4"}, "resources": {"cpu": "8", "memory": "30Gi", "nvidia.com/gpu": "1"}}]'
)
_DEFAULT_PODS: Final = "110"
"""The kubelet's default of ``maxPods``."""


def pools_from(environ: Mapping[str, str]) -> Pools:
    """Raises InvalidSetting, which names the variable."""
    gpu_pools = _gpu_pools(environ, "CORRAL_GPU_POOLS")
    return Pools(gpu_pools, _node_pools(environ, "CORRAL_NODE_POOLS", gpu_pools=gpu_pools))


def _gpu_pools(environ: Mapping[str, str], setting: str) -> tuple[GpuPool, ...]:
    """Parse objects with ``selector``, ``memory`` and perhaps ``resource``."""
    return tuple(_gpu_pool(item, setting) for item in _objects(environ, setting, _GPU_POOL))


def _gpu_pool(item: JsonObject, setting: str) -> GpuPool:
    selector, memory = get_object(item, "selector"), _amount(item.get("memory"))
    if not item.keys() <= {"selector", "memory", "resource"} or not _are_texts(selector) or not memory:
        raise _invalid(setting, item, _GPU_POOL)
    return GpuPool(_pairs(selector), memory, get_str(item, "resource"))


def _node_pools(environ: Mapping[str, str], setting: str, *, gpu_pools: Sequence[GpuPool]) -> tuple[NodePool, ...]:
    """Parse objects with ``name``, ``labels``, ``resources``, and perhaps ``taints`` and ``maxNodes``."""
    pools = tuple(_node_pool(item, setting, gpu_pools=gpu_pools) for item in _objects(environ, setting, _NODE_POOL))
    if len({pool.name for pool in pools}) < len(pools):
        raise InvalidSetting(f"{setting} is not allowed: two node pools have the same name")
    return pools


def _node_pool(item: JsonObject, setting: str, *, gpu_pools: Sequence[GpuPool]) -> NodePool:
    name, labels, resources = get_str(item, "name"), get_object(item, "labels"), get_object(item, "resources")
    known = item.keys() <= {"name", "labels", "resources", "taints", "maxNodes"}
    limit = item.get("maxNodes")
    allowed = limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0)
    complete = bool(name) and _are_texts(labels) and bool(resources) and all(map(_is_amount, resources.values()))
    if not known or not allowed or not complete:
        raise _invalid(setting, item, _NODE_POOL)
    amounts = {PODS: _DEFAULT_PODS, **resources}
    raw = {
        "metadata": {"name": f"a new node of the pool {name}", "labels": labels},
        "spec": {"taints": item.get("taints")},
        "status": {
            "allocatable": amounts,
            "capacity": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    return NodePool(name, parse_node(raw, gpu_pools=gpu_pools), limit if isinstance(limit, int) else None)


def _objects(environ: Mapping[str, str], setting: str, example: str) -> list[JsonObject]:
    value = environ.get(setting, "")
    try:
        found = json.loads(value or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _invalid(setting, value, example)
    return found


def _invalid(setting: str, value: object, example: str) -> InvalidSetting:
    return InvalidSetting(f"{setting}: {value!r} is not allowed: it must be a list like {example}")


def _are_texts(labels: JsonObject) -> bool:
    return bool(labels) and all(isinstance(value, str) for value in labels.values())


def _pairs(labels: JsonObject) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in labels.items()))


def _is_amount(value: object) -> bool:
    return _amount(value) is not None


def _amount(value: object) -> int | None:
    try:
        return resource_amount("memory", value)
    except InvalidQuantity:
        return None
