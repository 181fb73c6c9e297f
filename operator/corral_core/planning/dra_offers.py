"""GPUs that a DRA driver publishes for a node, and pods that share them.

- Only devices that allow several allocations count (``DRAConsumableCapacity``, on by default from Kubernetes 1.36 on).
  The scheduler counts their memory; nothing enforces it on the device.
- In plans the memory of all devices of a node is one resource, ``CLAIMED_MEMORY``. The scheduler counts each device
  apart, so on a node with several of them it can find that no single one has the memory that is free on all together.
- A pod with a claim has the annotation ``CLAIM_ANNOTATION``, since its spec only names a template.

Attributes, capacity and the DeviceClass are those of NVIDIA's driver:
https://github.com/kubernetes-sigs/dra-driver-nvidia-gpu, ``cmd/gpu-kubelet-plugin/deviceinfo.go`` and
``consumable_shares.go`` (``--consumable-shares``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from corral_core.base.errors import InvalidQuantity
from corral_core.base.json_fields import JsonObject, get_int, get_object, get_objects, get_str, get_value
from corral_core.base.quantities import MEMORY, ResourceAmounts, resource_amount, resource_amounts
from corral_core.planning.gpus.offers import DRA, GpuOffer
from corral_core.planning.node import Node, PodRequirements

DRIVER: Final = "gpu.nvidia.com"
"""Name of NVIDIA's driver, and of its DeviceClass of whole GPUs."""

CLAIMED_MEMORY: Final = f"{DRIVER}/memory"
"""Resource of plans: bytes of the shareable devices of a node, and of the claims on them."""

CLAIM_ANNOTATION: Final = "corral.dev/gpu-claim"
"""Annotation of a pod: bytes that its claim takes of all its devices together."""

_WHOLE_GPU: Final = "gpu"


@dataclass(frozen=True, slots=True)
class DraDevice:
    """A shareable GPU. ``memory`` is in bytes; ``product`` has no spaces, as in the labels of nodes."""

    name: str
    memory: int
    product: str = ""
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class DevicePool:
    """The shareable GPUs in one ResourceSlice of a node's pool."""

    node: str
    pool: str
    generation: int
    devices: tuple[DraDevice, ...]


def parse_resource_slice(raw: JsonObject) -> DevicePool:
    """Parse a ResourceSlice of ``resource.k8s.io/v1``; one of another driver or of no single node has no devices."""
    known = get_str(raw, "spec", "driver") == DRIVER
    devices = (_device(item) for item in get_objects(raw, "spec", "devices") if known)
    return DevicePool(
        node=get_str(raw, "spec", "nodeName"),
        pool=get_str(raw, "spec", "pool", "name"),
        generation=get_int(raw, "spec", "pool", "generation"),
        devices=tuple(device for device in devices if device is not None),
    )


def with_pools(node: Node, pools: Iterable[DevicePool]) -> Node:
    """Return the node with its shareable devices.

    Of a pool only the slices of its newest generation count. Of devices of several sizes the smallest is offered.
    """
    listed = list(pools)
    newest = {pool.pool: max(each.generation for each in listed if each.pool == pool.pool) for pool in listed}
    devices = [device for pool in listed if pool.generation == newest[pool.pool] for device in pool.devices]
    if not devices:
        return node
    smallest, number = min(devices, key=lambda device: device.memory), len(devices)
    offer = GpuOffer(
        DRIVER,
        number,
        number,
        smallest.memory,
        product=smallest.product,
        sharing=DRA,
        compute_capability=smallest.compute_capability,
    )
    memory = {CLAIMED_MEMORY: sum(device.memory for device in devices)}
    return replace(
        node,
        allocatable={**node.allocatable, **memory},
        max_allocatable={**node.max_allocatable, **memory},
        gpus=(*node.gpus, offer),
    )


def with_claimed_memory(requirements: PodRequirements, amounts: ResourceAmounts) -> PodRequirements:
    """Return the requirements of a pod whose claim takes ``amounts``."""
    return replace(requirements, requests=tuple(sorted({**dict(requirements.requests), **amounts}.items())))


def claimed_memory(pod: JsonObject) -> dict[str, int]:
    """Return what the claim of a pod takes, as amounts; the pod may be a pod template."""
    claims = get_objects(pod, "spec", "resourceClaims")
    annotation = get_value(pod, "metadata", "annotations", CLAIM_ANNOTATION)
    return resource_amounts({CLAIMED_MEMORY: annotation}) if claims and annotation is not None else {}


def _device(raw: JsonObject) -> DraDevice | None:
    """Parse a whole GPU that may be shared and whose memory is known; None for every other device."""
    attributes = get_object(raw, "attributes")
    shareable = get_value(raw, "allowMultipleAllocations") is True
    if not shareable or get_str(attributes, "type", "string") != _WHOLE_GPU:
        return None
    try:
        memory = resource_amount(MEMORY, get_value(raw, "capacity", "memory", "value"))
    except InvalidQuantity:
        return None
    product = get_str(attributes, "productName", "string").replace(" ", "-")
    version = get_str(attributes, "cudaComputeCapability", "version")
    return DraDevice(get_str(raw, "name"), memory, product, _compute_capability(version))


def _compute_capability(version: str) -> tuple[int, int] | None:
    """Parse the first two numbers of a semantic version."""
    parts = version.split(".")[:2]
    if len(parts) < 2 or not all(part.isascii() and part.isdecimal() and len(part) < 4 for part in parts):
        return None
    return int(parts[0]), int(parts[1])
