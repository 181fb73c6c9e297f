"""The operator's view of ResourceSlices and of allocated ResourceClaims."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str
from corral_core.base.quantities import MEMORY, resource_amounts
from corral_core.planning.dra_offers import DRIVER, DevicePool, parse_resource_slice
from corral_operator.observe.objects import Meta, parse_meta


@dataclass(frozen=True, slots=True)
class ResourceSliceObject:
    meta: Meta = field(compare=False)
    pool: DevicePool


@dataclass(frozen=True, slots=True)
class ResourceClaimObject:
    """A claim: the node whose GPUs it was allocated, empty until then, and the bytes of memory on all of them."""

    meta: Meta = field(compare=False)
    node: str
    memory: int


def parse_slice_object(raw: JsonObject) -> ResourceSliceObject:
    return ResourceSliceObject(parse_meta(raw, ""), parse_resource_slice(raw))


def parse_claim_object(raw: JsonObject) -> ResourceClaimObject:
    """Parse a ResourceClaim. NVIDIA's driver names the pool of a node's GPUs for the node."""
    results = get_objects(raw, "status", "allocation", "devices", "results")
    ours = [result for result in results if get_str(result, "driver") == DRIVER]
    return ResourceClaimObject(
        parse_meta(raw, ""),
        node=next((get_str(result, "pool") for result in ours), ""),
        memory=sum(resource_amounts(get_object(result, "consumedCapacity")).get(MEMORY, 0) for result in ours),
    )
