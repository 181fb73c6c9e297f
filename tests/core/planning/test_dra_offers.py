"""GPUs of ResourceSlices as what a node offers."""

from __future__ import annotations

import pytest

from corral_core.base.json_fields import JsonObject
from corral_core.planning.dra_offers import (
    CLAIMED_MEMORY,
    DRIVER,
    DevicePool,
    DraDevice,
    claimed_memory,
    parse_resource_slice,
    with_pools,
)
from corral_core.planning.gpus.offers import DRA, GpuOffer
from corral_core.planning.node import Node, parse_node

GI = 2**30


def device(name: str = "gpu-0", memory: str = "24Gi", **fields: object) -> JsonObject:
    attributes = {
        "type": {"string": "gpu"},
        "productName": {"string": "NVIDIA L4"},
        "cudaComputeCapability": {"version": "8.9.0"},
    }
    shared = {"allowMultipleAllocations": True, "capacity": {"memory": {"value": memory}}}
    return {"name": name, "attributes": attributes, **shared, **fields}


def raw_slice(*devices: JsonObject, driver: str = DRIVER, generation: int = 1) -> JsonObject:
    pool = {"name": "n", "generation": generation, "resourceSliceCount": 1}
    return {"spec": {"driver": driver, "nodeName": "n", "pool": pool, "devices": list(devices)}}


def node(*slices: JsonObject) -> Node:
    """Return a node with these slices."""
    amounts = {"cpu": "4", "memory": "16Gi"}
    plain = parse_node({"metadata": {"name": "n"}, "status": {"allocatable": amounts, "capacity": amounts}})
    return with_pools(plain, map(parse_resource_slice, slices))


def test_a_slice_has_the_shareable_gpus_of_a_node() -> None:
    small, large = (DraDevice(f"gpu-{number}", size * GI, "NVIDIA-L4", (8, 9)) for number, size in ((0, 24), (1, 48)))
    found = parse_resource_slice(raw_slice(device("gpu-0"), device("gpu-1", "48Gi")))
    assert found == DevicePool("n", "n", 1, (small, large))


def test_a_node_offers_its_devices_with_the_memory_of_the_smallest() -> None:
    (offer,) = node(raw_slice(device("gpu-0"), device("gpu-1", "48Gi"))).gpus
    assert offer == GpuOffer(DRIVER, 2, 2, 24 * GI, product="NVIDIA-L4", sharing=DRA, compute_capability=(8, 9))


def test_the_memory_of_all_devices_is_a_resource_of_the_node() -> None:
    found = node(raw_slice(device("gpu-0"), device("gpu-1", "48Gi")))
    expected = {"cpu": 4000, "memory": 16 * GI, CLAIMED_MEMORY: 72 * GI}
    assert (found.allocatable, found.max_allocatable) == (expected, expected)


@pytest.mark.parametrize(
    "other",
    [
        raw_slice(device(), driver="gpu.example.com"),
        raw_slice(device(allowMultipleAllocations=False)),
        raw_slice(device(attributes={"type": {"string": "mig"}})),
        raw_slice(device(capacity={})),
        raw_slice(device(capacity={"memory": {"value": "much"}})),
        raw_slice(),
        {},
    ],
    ids=["another driver", "exclusive", "a MIG slice", "no memory", "memory that is no quantity", "no device", "empty"],
)
def test_other_devices_are_not_offered(other: JsonObject) -> None:
    assert node(other) == node()


@pytest.mark.parametrize("version", ["8", "", "x.y.z", "8.-1.0", "99999.0.0"])
def test_a_compute_capability_that_is_no_version_is_not_known(version: str) -> None:
    attributes = {"type": {"string": "gpu"}, "cudaComputeCapability": {"version": version}}
    (pool,) = [parse_resource_slice(raw_slice(device(attributes=attributes)))]
    assert pool.devices[0].compute_capability is None


def test_slices_of_an_older_generation_of_a_pool_do_not_count() -> None:
    older, newer = raw_slice(device("gpu-0"), device("gpu-1")), raw_slice(device("gpu-0"), generation=2)
    assert node(older, newer).allocatable[CLAIMED_MEMORY] == 24 * GI


def test_a_pod_with_a_claim_takes_the_memory_in_its_annotation() -> None:
    metadata = {"annotations": {"corral.dev/gpu-claim": str(9 * GI)}}
    spec = {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]}
    assert claimed_memory({"metadata": metadata, "spec": spec}) == {CLAIMED_MEMORY: 9 * GI}


@pytest.mark.parametrize("annotations", [{}, {"corral.dev/gpu-claim": "much"}, {"corral.dev/gpu-claim": 7.5}])
def test_a_pod_without_a_readable_annotation_takes_none(annotations: JsonObject) -> None:
    assert claimed_memory({"metadata": {"annotations": annotations}, "spec": {"resourceClaims": [{}]}}) == {}


def test_the_annotation_of_a_pod_without_a_claim_does_not_count() -> None:
    assert claimed_memory({"metadata": {"annotations": {"corral.dev/gpu-claim": "5"}}, "spec": {}}) == {}
