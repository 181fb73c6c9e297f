"""GPUs that a runner pod requests: units of a resource, and the nodes on which each unit has enough memory.

- The affinity is written so that the scheduler can choose no node on which the model does not fit: a node label holds
  the memory in MiB (``Gt``), or labels identify the nodes whose memory is known otherwise (``In``). It so holds for
  nodes that join later, too.
- An exclusive request admits no node that shares its GPUs, and a shared one no other. Both offer the same resource
  unless the device plugin renames it; the labels are NVIDIA's and GKE's (``gpus.offers``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from corral_core.base.json_fields import JsonObject, get_int, get_objects, get_str
from corral_core.base.quantities import resource_amount
from corral_core.model.accelerator import vendor_of
from corral_core.model.model import GPUSpec
from corral_core.planning.affinity import NodeSelectorRequirement as Requirement
from corral_core.planning.affinity import NodeSelectorTerm, NodeSelectorTerms, node_selector_terms
from corral_core.planning.gpus.offers import DRA, MPS, NO_SHARING, GpuOffer

MIB = 1 << 20
MAX_COUNT = 256
"""GPUs of a pod, as in the Model; the annotation can be edited, and memory is planned for each GPU."""
RENAMED = ".shared"
"""Suffix of the resource of shared GPUs that the device plugin renames."""
_GKE_SHARING = "cloud.google.com/gke-gpu-sharing-strategy"
_PRODUCT_LABELS = {"amd": "amd.com/gpu.product-name", "intel": "gpu.intel.com/product"}
_COMPUTE = "nvidia.com/gpu.compute"

_Requirements = tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """``count`` units of ``resource``, on nodes with one of ``terms`` (any node without terms).

    ``memory`` are the bytes that the model takes on each of them, 0 if that is not known. ``capacity`` is the memory of
    each of them in bytes if only that part of the model is on them which fits, 0 if all of it is. ``spec`` identifies
    the fields of the Model for which they were chosen.
    """

    resource: str
    count: int
    memory: int = 0
    terms: NodeSelectorTerms = ()
    capacity: int = 0
    spec: str = ""

    def to_json(self) -> dict[str, object]:
        terms = {"terms": [term.to_json() for term in self.terms]} if self.terms else {}
        numbers = {"count": self.count, "memory": self.memory, "capacity": self.capacity}
        return {"resource": self.resource, **numbers, **terms, "spec": self.spec}

    @classmethod
    def from_json(cls, data: JsonObject) -> GpuRequest | None:
        """Parse the result of ``to_json``; None if it is something else."""
        resource, count = get_str(data, "resource"), get_int(data, "count")
        if not resource or not 0 < count <= MAX_COUNT:
            return None
        return cls(
            resource,
            count,
            get_int(data, "memory"),
            node_selector_terms(get_objects(data, "terms")),
            get_int(data, "capacity"),
            get_str(data, "spec"),
        )


def wants_shared(gpu: GPUSpec) -> bool:
    """Whether the Model takes replicas of shared GPUs; the resource of renamed ones says so, too."""
    return gpu.sharing == "shared" or (gpu.resource or "").endswith(RENAMED)


def usable_offers(gpu: GPUSpec, offers: Iterable[GpuOffer]) -> list[GpuOffer]:
    """Return the offers that the fields of the Model admit, whatever the model needs."""
    return [offer for offer in offers if not unusable(gpu, offer)]


def unusable(gpu: GPUSpec, offer: GpuOffer) -> str:
    """Return why the Model's fields exclude an offer; empty if they do not."""
    if gpu.resource is not None and offer.resource != gpu.resource:
        return f"spec.gpu.resource is {gpu.resource}"
    if gpu.resource is None and offer.memory is None and vendor_of(offer.resource) is None:
        return "vendor and memory are unknown, and spec.gpu.resource does not name it"
    if wants_shared(gpu) != (offer.sharing != NO_SHARING or offer.resource.endswith(RENAMED)):
        return f"spec.gpu.sharing is {gpu.sharing}"
    if gpu.product is not None and offer.product != gpu.product:
        return f"spec.gpu.product is {gpu.product}"
    if gpu.compute_capability is not None and (offer.compute_capability or (0, 0)) < _version(gpu.compute_capability):
        return f"spec.gpu.computeCapability is {gpu.compute_capability}"
    if gpu.memory is not None and (offer.memory or 0) < minimum_memory(gpu):
        return f"spec.gpu.memory is {gpu.memory}"
    return ""


def is_slice(offer: GpuOffer) -> bool:
    """Whether the units are MIG slices. A CUDA process can use only one of them.

    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/ (CUDA device enumeration). With the strategy "single" they
    have the resource of whole GPUs, and the product says so.
    """
    return offer.resource.startswith("nvidia.com/mig-") or "-MIG-" in offer.product


def minimum_memory(gpu: GPUSpec) -> int:
    """Return ``spec.gpu.memory`` in bytes, 0 without it."""
    return resource_amount("memory", gpu.memory) if gpu.memory is not None else 0


def offer_terms(gpu: GPUSpec, offers: Iterable[GpuOffer], *, memory: int) -> NodeSelectorTerms:
    """Return the terms for nodes with such offers and ``memory`` bytes on each unit, 0 for any.

    Empty if no label distinguishes one of the kinds of nodes; the resource alone then admits them.
    """
    found: dict[NodeSelectorTerm, None] = {}
    for offer in offers:
        if offer.sharing == DRA:  # the claim selects the devices
            return ()
        for one in product(_sharing(offer), _capability(gpu)):
            requirements = (*_memory(offer, memory), *_product(gpu, offer.resource), *one[0], *one[1])
            if not requirements:
                return ()
            found[NodeSelectorTerm(tuple(dict.fromkeys(requirements)))] = None
    return tuple(found)


def and_terms(own: NodeSelectorTerms | None, added: NodeSelectorTerms) -> NodeSelectorTerms:
    """Return terms that match where one of each matches. An empty term matches nothing, as in the scheduler."""
    if own is None or not added:
        return own or added
    return tuple(
        NodeSelectorTerm((*one.match_expressions, *other.match_expressions), one.match_fields)
        for one in own
        for other in added
        if one.match_expressions or one.match_fields
    ) or (NodeSelectorTerm(),)


def _memory(offer: GpuOffer, memory: int) -> _Requirements:
    if not memory:
        return ()
    if offer.memory_label:
        return (Requirement(offer.memory_label, "Gt", (str(-(-memory // MIB) - 1),)),)
    return tuple(Requirement(name, "In", (value,)) for name, value in offer.selector)


def _product(gpu: GPUSpec, resource: str) -> _Requirements:
    if gpu.product is None:
        return ()
    vendor = vendor_of(resource)
    label = _PRODUCT_LABELS.get(vendor or "", f"{resource.removesuffix(RENAMED)}.product")
    return (Requirement(label, "In", (gpu.product, f"{gpu.product}-SHARED")),)


def _sharing(offer: GpuOffer) -> list[_Requirements]:
    """Return alternatives. Only NVIDIA's labels say whether a node's GPUs are shared under their own name."""
    if vendor_of(offer.resource) != "nvidia" or offer.resource.endswith(RENAMED):
        return [()]
    name = f"{offer.resource}.replicas"
    if offer.sharing == NO_SHARING:
        not_gke = Requirement(_GKE_SHARING, "DoesNotExist")
        return [(Requirement(name, "Lt", ("2",)), not_gke), (Requirement(name, "DoesNotExist"), not_gke)]
    strategy = f"{offer.resource}.sharing-strategy"
    operator = "In" if offer.sharing == MPS else "NotIn"
    of_gke = Requirement(_GKE_SHARING, "In", (offer.sharing,))
    return [(Requirement(name, "Gt", ("1",)), Requirement(strategy, operator, (MPS,))), (of_gke,)]


def _capability(gpu: GPUSpec) -> list[_Requirements]:
    if gpu.compute_capability is None:
        return [()]
    major, minor = _version(gpu.compute_capability)
    above = (Requirement(f"{_COMPUTE}.major", "Gt", (str(major),)),)
    same = Requirement(f"{_COMPUTE}.major", "In", (str(major),))
    if minor == 0:
        return [above, (same,)]
    return [above, (same, Requirement(f"{_COMPUTE}.minor", "Gt", (str(minor - 1),)))]


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)
