"""GPUs that a node offers under its extended resources, from the labels of the vendors' node labellers.

- A unit is what a pod requests of the resource: a GPU, a MIG slice, or a replica of either if they are shared.
- Labels are written by other programs. A value that is not a number, or larger than any GPU, reads as absent.
- The labels describe all GPUs of a node together. On a node with several models of GPUs they describe one of them.
- NVIDIA: https://github.com/NVIDIA/k8s-device-plugin, ``internal/lm/resource.go`` and ``mig-strategy.go``. Labels begin
  with the resource name before it was renamed (``nvidia.com/gpu.shared`` has the labels of ``nvidia.com/gpu``). MIG
  strategy "single" has slices as ``nvidia.com/gpu``, "mixed" as ``nvidia.com/mig-<profile>``.
- GKE has its own labels of sharing: https://cloud.google.com/kubernetes-engine/docs/concepts/timesharing-gpus.
- AMD: https://github.com/ROCm/k8s-device-plugin, ``cmd/k8s-node-labeller/main.go``.
- Intel: https://github.com/intel/intel-device-plugins-for-kubernetes, ``cmd/gpu_plugin/labels.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from corral_core.base.quantities import GPU_MEMORY, GPU_MEMORY_LIMIT, ResourceAmounts

HOSTNAME: Final = "kubernetes.io/hostname"

NO_SHARING, TIME_SLICING, MPS, DRA = "none", "time-slicing", "mps", "dra"

Labels = Mapping[str, str]

_MIB, _GIB = 2**20, 2**30
_NVIDIA: Final = "nvidia.com/"
_MIG: Final = f"{_NVIDIA}mig-"
_FULL_GPU: Final = f"{_NVIDIA}gpu"
_RENAMED: Final = ".shared"
"""Suffix of a resource whose units are replicas (``renameByDefault`` of NVIDIA's device plugin)."""
_AMD: Final = re.compile(r"amd\.com/(gpu|[a-z]{3}_nps[0-9]+)")
"""Whole GPUs, or partitions by their kind (``amd.com/cpx_nps4``)."""
_INTEL: Final = ("gpu.intel.com/i915", "gpu.intel.com/xe")
_OTHER_SUFFIX: Final = "/gpu"
_GKE_REPLICAS: Final = "cloud.google.com/gke-max-shared-clients-per-gpu"
_GKE_SHARING: Final = "cloud.google.com/gke-gpu-sharing-strategy"
_AMD_VRAM: Final = re.compile(r"((?:beta\.)?amd\.com/gpu\.vram)\.([0-9]{1,6})G")
_AMD_SIZE: Final = re.compile(r"([0-9]{1,6})G")
_INTEL_DEVICES: Final = re.compile(r"gpu\.intel\.com/device-id\.[0-9a-f]{4}-[0-9a-f]{4}\.count")

_UNKNOWN: Final = ":unknown"
"""Suffix of a GPU's resource name: units of pods that do not say how much memory they take."""

_MAX_DIGITS: Final = 9
"""Digits of a number in a label; a GPU with 10^9 MiB does not exist."""


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """What one node offers under one extended resource.

    ``count`` are the allocatable units in the node's best state, ``devices`` the physical GPUs or MIG slices behind
    them. ``memory`` is the most that one unit may use, in bytes: the whole device if it is exclusive or time-sliced,
    its share with MPS, which enforces it; None if it is not known.

    ``memory_label`` is the node label that holds ``memory`` in MiB, empty without one. ``selector`` are labels with
    which every node has this memory, if no label holds it. ``product`` is the name by the labels, without the suffix
    ``-SHARED``; empty if it is not known. ``sharing`` is ``none``, ``time-slicing``, ``mps`` or
    ``dra`` (``dra_offers``).
    """

    resource: str
    count: int
    devices: int
    memory: int | None = None
    memory_label: str = ""
    selector: tuple[tuple[str, str], ...] = ()
    product: str = ""
    sharing: str = NO_SHARING
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class GpuPool:
    """Memory of the GPUs of nodes with these labels, in bytes, for nodes whose own labels do not tell it.

    ``memory`` is that of a GPU or MIG slice, shared or not. ``resource`` empty: of all GPU resources of the nodes.
    """

    selector: tuple[tuple[str, str], ...]
    memory: int
    resource: str = ""

    def describes(self, offer: GpuOffer, labels: Labels) -> bool:
        selected = all(labels.get(name) == value for name, value in self.selector)
        return selected and self.resource in ("", offer.resource)


def is_gpu_resource(resource: str) -> bool:
    """Return whether units of the resource are GPUs or parts of GPUs; monitoring resources are not."""
    named = resource.endswith(_OTHER_SUFFIX) or resource in _INTEL
    return named or _is_nvidia(resource) or _AMD.fullmatch(resource) is not None


def gpu_offers(allocatable: ResourceAmounts, labels: Labels, *, pools: Sequence[GpuPool] = ()) -> tuple[GpuOffer, ...]:
    """Return the GPUs of a node, by resource name; ``allocatable`` are its resources in its best state.

    The first of ``pools`` that describes an offer has its memory, if the labels do not tell it.
    """
    names = sorted(name for name, count in allocatable.items() if count > 0 and is_gpu_resource(name))
    return tuple(_complete(_offer(name, allocatable[name], labels), labels, pools) for name in names)


def with_reported_memory(
    offers: tuple[GpuOffer, ...], labels: Labels, reported: Mapping[str, int]
) -> tuple[GpuOffer, ...]:
    """Return the offers with the memory that a runner reported, in bytes by resource, where nothing else tells it.

    It holds for this node alone, which is why it needs the label of the node's own name. Nothing tells how GPUs without
    labels are shared, so offers that are known to be shared stay as they are.
    """
    hostname = labels.get(HOSTNAME)
    if not hostname:
        return offers
    selector = ((HOSTNAME, hostname),)
    return tuple(
        replace(offer, memory=reported[offer.resource], selector=selector)
        if offer.memory is None and offer.sharing == NO_SHARING and offer.resource in reported
        else offer
        for offer in offers
    )


def _complete(offer: GpuOffer, labels: Labels, pools: Sequence[GpuPool]) -> GpuOffer:
    pool = next((pool for pool in pools if pool.describes(offer, labels)), None) if offer.memory is None else None
    if pool is None:
        return offer
    memory = pool.memory * offer.devices // offer.count if offer.sharing == MPS else pool.memory
    return replace(offer, memory=memory, selector=pool.selector)


def shared_memory(offers: Iterable[GpuOffer]) -> dict[str, int]:
    """Return the memory of a node's shared GPUs that pods can take, in bytes by ``resource:memory``.

    No program enforces the memory of time-sliced units, so it is counted like a resource. On a node with several
    time-sliced GPUs the device plugin chooses the GPU of a pod and does not know its memory: all pods together count
    against the memory of one GPU, so none runs out of memory wherever the plugin puts them. With MPS each unit has its
    own part of the memory, so units are enough to count; ``resource:memory-limit`` is the size of that part. Exclusive
    GPUs have neither.
    """
    suffixes = {TIME_SLICING: GPU_MEMORY, MPS: GPU_MEMORY_LIMIT}
    known = [(offer, offer.memory) for offer in offers if offer.sharing in suffixes and offer.memory is not None]
    return {f"{offer.resource}{suffixes[offer.sharing]}": memory for offer, memory in known}


def pod_gpu_memory(requests: ResourceAmounts, memory: int) -> dict[str, int]:
    """Return what a pod with these requests takes of shared GPUs; ``memory`` is in bytes on each GPU, 0 if unknown.

    Several units count several times, because they may be of the same GPU.
    """
    units = {name: number for name, number in requests.items() if is_gpu_resource(name)}
    if memory:
        return {f"{name}{GPU_MEMORY}": number * memory for name, number in units.items()}
    return {f"{name}{_UNKNOWN}": number for name, number in units.items()}


def unknown_memory(offers: Iterable[GpuOffer], requested: ResourceAmounts) -> dict[str, int]:
    """Return the memory that is counted for the pods on a node that do not say how much they take.

    A unit counts with the memory of the GPU divided by its replicas: the number of replicas says that so many pods fit
    on the GPU, and if other pods have all of them nothing is left.
    """
    return {
        f"{offer.resource}{GPU_MEMORY}": requested[f"{offer.resource}{_UNKNOWN}"]
        * -(-offer.memory * offer.devices // offer.count)
        for offer in offers
        if offer.sharing == TIME_SLICING and offer.memory is not None and f"{offer.resource}{_UNKNOWN}" in requested
    }


def _offer(resource: str, count: int, labels: Labels) -> GpuOffer:
    if _is_nvidia(resource):
        return _nvidia(resource, count, labels)
    if _AMD.fullmatch(resource):
        return _amd(resource, count, labels)
    return _intel(resource, count, labels) if resource in _INTEL else GpuOffer(resource, count, count)


def _is_nvidia(resource: str) -> bool:
    return resource.removesuffix(_RENAMED) == _FULL_GPU or resource.startswith(_MIG)


def _nvidia(resource: str, count: int, labels: Labels) -> GpuOffer:
    """Return an offer of NVIDIA's device plugin.

    The label ``.count`` is not used: with the MIG strategy "mixed" it counts GPUs that are partitioned as well.
    """
    prefix = resource.removesuffix(_RENAMED)
    replicas = min(max(_number(labels, f"{prefix}.replicas") or _number(labels, _GKE_REPLICAS) or 1, 1), count)
    sharing = _nvidia_sharing(prefix, replicas, labels)
    memory, label, selector = _nvidia_memory(prefix, replicas, sharing, labels=labels)
    return GpuOffer(
        resource,
        count,
        -(-count // replicas),
        memory,
        label,
        selector,
        product=labels.get(f"{prefix}.product", "").removesuffix("-SHARED"),
        sharing=sharing,
        compute_capability=_compute_capability(labels),
    )


def _nvidia_sharing(prefix: str, replicas: int, labels: Labels) -> str:
    """Return the strategy; releases of GPU feature discovery before 0.15 have no label of it and no MPS."""
    if replicas == 1:
        return NO_SHARING
    strategy = labels.get(f"{prefix}.sharing-strategy") or labels.get(_GKE_SHARING)
    return MPS if strategy == MPS else TIME_SLICING


def _nvidia_memory(
    prefix: str, replicas: int, sharing: str, *, labels: Labels
) -> tuple[int | None, str, tuple[tuple[str, str], ...]]:
    """Return memory, memory label and selector.

    MPS limits the memory of a client to an equal share (``cmd/mps-control-daemon/mps/daemon.go`` in NVIDIA's
    repository), which no label holds.
    """
    label = f"{prefix}.memory"
    mebibytes = _number(labels, label)
    if not mebibytes or mebibytes < replicas:
        return None, "", ()
    if sharing != MPS:
        return mebibytes * _MIB, label, ()
    names = (label, f"{prefix}.replicas", f"{prefix}.sharing-strategy", _GKE_REPLICAS, _GKE_SHARING)
    return mebibytes // replicas * _MIB, "", _pairs(labels, *names)


def _compute_capability(labels: Labels) -> tuple[int, int] | None:
    """Return the compute capability of the GPUs, which is also that of their MIG slices."""
    major = _number(labels, f"{_FULL_GPU}.compute.major")
    minor = _number(labels, f"{_FULL_GPU}.compute.minor")
    return (major, minor) if major and minor is not None else None


def _amd(resource: str, count: int, labels: Labels) -> GpuOffer:
    """Return an offer of AMD's device plugin; of GPUs of several sizes the smallest counts.

    The labels round the memory to whole GiB, so a GPU may have half a GiB less.
    """
    sizes = {}
    for name in sorted(labels):
        several = _AMD_VRAM.fullmatch(name)
        single = _AMD_SIZE.fullmatch(labels[name]) if name == "amd.com/gpu.vram" else None
        if several or single:
            sizes[name] = int(several[2] if several else single[1] if single else 0)
    smallest = min(sizes.values(), default=0)
    return GpuOffer(
        resource,
        count,
        count,
        smallest * _GIB - _GIB // 2 if smallest else None,
        selector=_pairs(labels, *sizes) if smallest else (),
        product=labels.get("amd.com/gpu.product-name", ""),
    )


def _intel(resource: str, count: int, labels: Labels) -> GpuOffer:
    """Return an offer of Intel's device plugin. No label tells its ``-shared-dev-num``, but labels count the GPUs.

    ``gpu.intel.com/memory.max`` are the bytes of all GPUs of the node; releases from 0.31 on do not write it.
    """
    found = sum(_number(labels, name) or 0 for name in labels if _INTEL_DEVICES.fullmatch(name))
    devices = min(_number(labels, "gpu.intel.com/device.count") or found or count, count)
    total = _number(labels, "gpu.intel.com/memory.max", digits=_MAX_DIGITS + 6) or 0
    return GpuOffer(
        resource,
        count,
        devices,
        total // devices or None,
        selector=_pairs(labels, "gpu.intel.com/memory.max", "gpu.intel.com/device.count") if total >= devices else (),
        product=labels.get("gpu.intel.com/product", ""),
        sharing=TIME_SLICING if devices < count else NO_SHARING,
    )


def _pairs(labels: Labels, *names: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, labels[name]) for name in names if name in labels))


def _number(labels: Labels, name: str, *, digits: int = _MAX_DIGITS) -> int | None:
    value = labels.get(name, "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= digits else None
