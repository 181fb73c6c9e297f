"""Stores of ResourceSlices and of the ResourceClaims that belong to no Model, which count in the usage of nodes."""

from __future__ import annotations

from corral_core.planning.dra_offers import CLAIMED_MEMORY
from corral_operator.observe.dra.objects import (
    ResourceClaimObject,
    ResourceSliceObject,
    parse_claim_object,
    parse_slice_object,
)
from corral_operator.observe.node_usage import NodeUsage, PodUsage
from corral_operator.observe.object_store import ObjectStore


class DraStores:
    def __init__(self, usage: NodeUsage) -> None:
        self._usage = usage
        self.slices: ObjectStore[ResourceSliceObject] = ObjectStore(parse_slice_object, self._slice_changed)
        self.claims: ObjectStore[ResourceClaimObject] = ObjectStore(parse_claim_object, self._claim_changed)

    def _slice_changed(self, before: ResourceSliceObject | None, after: ResourceSliceObject | None) -> None:
        self._usage.update_pool(before.pool if before is not None else None, after.pool if after is not None else None)

    def _claim_changed(self, before: ResourceClaimObject | None, after: ResourceClaimObject | None) -> None:
        self._usage.update_pod(_taken(before), _taken(after))


def _taken(claim: ResourceClaimObject | None) -> PodUsage | None:
    return PodUsage(claim.node, {CLAIMED_MEMORY: claim.memory} if claim.memory else {}) if claim is not None else None
