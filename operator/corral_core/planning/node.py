"""Nodes and pod requirements as the scheduler sees them.

- ``Node`` and ``PodRequirements`` are parsed from API objects once per change.
- Every resource in a pod's requests counts, and the pod itself counts as one of ``pods``.
- The memory of shared GPUs counts like a resource (``gpu_offers.shared_memory``), on the nodes that have such GPUs.
- Requests are summed like the scheduler does (``component-helpers/resource/helpers.go``, ``PodRequests``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str, get_value
from corral_core.base.quantities import (
    GPU_MEMORY,
    GPU_MEMORY_LIMIT,
    PODS,
    ResourceAmounts,
    max_amounts,
    resource_amounts,
    sum_amounts,
)
from corral_core.planning.affinity import NodeSelectorTerms, required_node_affinity
from corral_core.planning.gpus.offers import GpuOffer, GpuPool, gpu_offers, is_gpu_resource, shared_memory
from corral_core.planning.image_volumes import has_image_volumes

_BLOCKING_EFFECTS = ("NoSchedule", "NoExecute")
_TEMPORARY_TAINT_PREFIXES = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Domains of taints that the cluster sets temporarily: not ready, under pressure, uninitialized."""

_POD_LEVEL_RESOURCES = ("cpu", "memory")
"""Resources besides hugepages for which pod-level ``spec.resources`` overrides the containers' requests."""


@dataclass(frozen=True, slots=True)
class Taint:
    """Taint that blocks pods; ``temporary`` if the cluster sets it for a limited time."""

    key: str
    value: str
    effect: str

    @property
    def temporary(self) -> bool:
        return self.key.startswith(_TEMPORARY_TAINT_PREFIXES)

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """An empty ``key`` tolerates every taint, an empty ``effect`` every effect, a ``value`` of None every value."""

    key: str
    value: str | None
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        same_effect = not self.effect or self.effect == taint.effect
        same_key = not self.key or self.key == taint.key
        return same_effect and same_key and (self.value is None or self.value == taint.value)


@dataclass(frozen=True, slots=True)
class Node:
    """``schedulable``: ready and not cordoned; ``unreachable``: its kubelet stopped reporting. ``taints`` are those
    that block pods.

    ``max_allocatable`` are the allocatable resources in the node's best state: devices vanish from ``allocatable``
    while their device plugin restarts, but not from the node's capacity. ``image_volumes``: the kubelet can mount
    images. ``gpus`` are its GPUs by resource name, in its best state.
    """

    name: str
    allocatable: ResourceAmounts
    labels: Mapping[str, str]
    max_allocatable: ResourceAmounts
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    unreachable: bool = False
    cordoned: bool = False
    image_volumes: bool = False
    gpus: tuple[GpuOffer, ...] = ()

    @property
    def schedulable(self) -> bool:
        return self.ready and not self.cordoned


@dataclass(frozen=True, slots=True)
class PodRequirements:
    """Requirements of a pod on its node. ``requests`` are sorted pairs, so that equal requirements compare equal.

    ``gpu_memory`` are the bytes that the pod takes on each of its GPUs, 0 if that is not known. They count on shared
    GPUs, whose memory pods take from one another.
    """

    requests: tuple[tuple[str, int], ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    affinity: NodeSelectorTerms | None = None
    gpu_memory: int = 0

    gpu_needs: tuple[tuple[str, int], ...] = field(init=False, repr=False, compare=False)
    """What the pod needs of shared GPUs; a node without such an amount has no limit of it."""

    def __post_init__(self) -> None:
        units = [each for each in self.requests if is_gpu_resource(each[0])] if self.gpu_memory else []
        memory = [(f"{name}{GPU_MEMORY}", number * self.gpu_memory) for name, number in units]
        limits = [(f"{name}{GPU_MEMORY_LIMIT}", self.gpu_memory) for name, _ in units]
        object.__setattr__(self, "gpu_needs", (*memory, *limits))


def parse_node(raw: JsonObject, *, gpu_pools: Sequence[GpuPool] = ()) -> Node:
    """Parse a node of the API; ``gpu_pools`` tell the memory of GPUs that its labels do not tell."""
    conditions = {get_str(item, "type"): get_str(item, "status") for item in get_objects(raw, "status", "conditions")}
    taints = (
        Taint(get_str(item, "key"), get_str(item, "value"), get_str(item, "effect"))
        for item in get_objects(raw, "spec", "taints")
    )
    allocatable = resource_amounts(get_object(raw, "status", "allocatable"))
    devices = {
        name: number for name, number in resource_amounts(get_object(raw, "status", "capacity")).items() if "/" in name
    }
    labels = {key: str(value) for key, value in get_object(raw, "metadata", "labels").items()}
    max_allocatable = max_amounts(allocatable, devices)
    gpus = gpu_offers(max_allocatable, labels, pools=gpu_pools)
    memory = shared_memory(gpus)
    return Node(
        name=get_str(raw, "metadata", "name"),
        allocatable=allocatable | memory,
        labels=labels,
        max_allocatable=max_allocatable | memory,
        taints=tuple(taint for taint in taints if taint.effect in _BLOCKING_EFFECTS),
        ready=conditions.get("Ready") == "True",
        unreachable=conditions.get("Ready") == "Unknown",
        cordoned=get_value(raw, "spec", "unschedulable") is True,
        image_volumes=has_image_volumes(
            get_str(raw, "status", "nodeInfo", "kubeletVersion"),
            get_str(raw, "status", "nodeInfo", "containerRuntimeVersion"),
        ),
        gpus=gpus,
    )


def pod_requirements(pod: JsonObject, *, gpu_memory: int = 0) -> PodRequirements:
    """Parse the requirements of a pod with this ``spec``; ``gpu_memory`` are its bytes on each of its GPUs."""
    return PodRequirements(
        requests=tuple(sorted(pod_requests(pod).items())),
        node_selector=tuple(sorted((key, str(value)) for key, value in get_object(pod, "nodeSelector").items())),
        tolerations=tuple(map(_toleration, get_objects(pod, "tolerations"))),
        affinity=required_node_affinity(get_object(pod, "affinity")),
        gpu_memory=gpu_memory,
    )


def _toleration(raw: JsonObject) -> Toleration:
    operator = get_str(raw, "operator") or "Equal"
    value = None if operator == "Exists" else get_str(raw, "value")
    return Toleration(get_str(raw, "key"), value, get_str(raw, "effect"))


def pod_requests(pod: JsonObject) -> dict[str, int]:
    """Sum the resource requests of a pod with this ``spec`` like the scheduler.

    Containers run together. Before them, init containers run one after another, beside the sidecars that were started
    before them (init containers with ``restartPolicy: Always``).
    """
    running = sum_amounts(_container_requests(container) for container in get_objects(pod, "containers"))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in get_objects(pod, "initContainers"):
        requests = _container_requests(container)
        if get_str(container, "restartPolicy") == "Always":
            sidecars = sum_amounts((sidecars, requests))
            requests = {}
        peak = max_amounts(peak, sum_amounts((sidecars, requests)))
    requested = max_amounts(peak, sum_amounts((running, sidecars))) | _pod_level_requests(pod)
    return sum_amounts((requested, resource_amounts(get_object(pod, "overhead")), {PODS: 1}))


def _container_requests(container: JsonObject) -> dict[str, int]:
    """Parse a container's requests; a limit without a request is the request."""
    resources = get_object(container, "resources")
    return resource_amounts({**get_object(resources, "limits"), **get_object(resources, "requests")})


def _pod_level_requests(pod: JsonObject) -> dict[str, int]:
    requests = resource_amounts(get_object(pod, "resources", "requests"))
    return {
        name: number
        for name, number in requests.items()
        if name in _POD_LEVEL_RESOURCES or name.startswith("hugepages-")
    }
