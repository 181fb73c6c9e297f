"""ResourceSlices and ResourceClaims as the operator sees them."""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject
from corral_operator.observe.dra.objects import parse_claim_object, parse_slice_object

GI = 2**30


def claim(*results: JsonObject) -> JsonObject:
    metadata = {"namespace": "lab", "name": "claim", "uid": "u", "resourceVersion": "7"}
    return {"metadata": metadata, "status": {"allocation": {"devices": {"results": list(results)}}}}


def result(device: str, *, driver: str = "gpu.nvidia.com", **consumed: str) -> JsonObject:
    return {"request": "gpu", "driver": driver, "pool": "n", "device": device, "consumedCapacity": consumed}


def test_an_allocated_claim_takes_memory_of_the_gpus_of_a_node() -> None:
    found = parse_claim_object(claim(result("gpu-0", memory="9Gi"), result("gpu-1", memory="1Gi")))
    assert (found.node, found.memory) == ("n", 10 * GI)
    assert (found.meta.key, found.meta.version) == ("lab/claim", 7)


def test_a_claim_without_an_allocation_or_of_another_driver_takes_none() -> None:
    for raw in (claim(), {}, claim(result("dev", driver="net.example.com", memory="1Gi"))):
        found = parse_claim_object(raw)
        assert (found.node, found.memory) == ("", 0)


def test_a_device_whose_capacity_is_not_consumed_takes_no_memory() -> None:
    assert parse_claim_object(claim(result("gpu-0"))).memory == 0


def test_a_slice_is_known_by_its_pool_and_its_version_does_not_change_it() -> None:
    spec = {"driver": "gpu.nvidia.com", "nodeName": "n", "pool": {"name": "n", "generation": 3}}
    first = parse_slice_object({"metadata": {"name": "s", "resourceVersion": "1"}, "spec": spec})
    assert (first.pool.node, first.pool.pool, first.pool.generation) == ("n", "n", 3)
    assert first == parse_slice_object({"metadata": {"name": "s", "resourceVersion": "2"}, "spec": spec})
