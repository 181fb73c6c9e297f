"""GPUs of nodes by the labels that the vendors' node labellers write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.planning.gpus.offers import (
    HOSTNAME,
    MPS,
    TIME_SLICING,
    GpuOffer,
    gpu_offers,
    is_gpu_resource,
    with_reported_memory,
)
from corral_core.planning.node import parse_node
from tests.operator import samples

GI, MI = 2**30, 2**20

L4 = {
    "nvidia.com/gpu.product": "NVIDIA-L4",
    "nvidia.com/gpu.memory": "23034",
    "nvidia.com/gpu.count": "1",
    "nvidia.com/gpu.replicas": "1",
    "nvidia.com/gpu.sharing-strategy": "none",
    "nvidia.com/gpu.compute.major": "8",
    "nvidia.com/gpu.compute.minor": "9",
}


def shared(replicas: int, strategy: str = "time-slicing") -> dict[str, str]:
    """Return the labels of an L4 with replicas."""
    return {
        **L4,
        "nvidia.com/gpu.product": "NVIDIA-L4-SHARED",
        "nvidia.com/gpu.replicas": str(replicas),
        "nvidia.com/gpu.sharing-strategy": strategy,
    }


def offer(resource: str, count: int, labels: dict[str, str]) -> GpuOffer:
    (found,) = gpu_offers({resource: count}, labels)
    return found


def test_an_exclusive_gpu_has_the_memory_of_its_label() -> None:
    assert offer("nvidia.com/gpu", 2, L4) == GpuOffer(
        "nvidia.com/gpu",
        2,
        2,
        23034 * MI,
        "nvidia.com/gpu.memory",
        product="NVIDIA-L4",
        compute_capability=(8, 9),
    )


def test_units_of_a_time_sliced_gpu_may_use_the_whole_gpu() -> None:
    found = offer("nvidia.com/gpu", 8, shared(4))
    assert (found.count, found.devices, found.sharing) == (8, 2, TIME_SLICING)
    assert (found.memory, found.memory_label, found.product) == (23034 * MI, "nvidia.com/gpu.memory", "NVIDIA-L4")


def test_units_of_mps_have_an_equal_share_that_no_label_holds() -> None:
    found = offer("nvidia.com/gpu", 4, shared(4, "mps"))
    assert (found.devices, found.sharing, found.memory, found.memory_label) == (1, MPS, 23034 // 4 * MI, "")
    assert dict(found.selector) == {
        "nvidia.com/gpu.memory": "23034",
        "nvidia.com/gpu.replicas": "4",
        "nvidia.com/gpu.sharing-strategy": "mps",
    }


def test_replicas_without_a_strategy_are_time_sliced() -> None:
    labels = {name: value for name, value in shared(4).items() if not name.endswith("strategy")}
    assert offer("nvidia.com/gpu", 4, labels).sharing == TIME_SLICING


def test_a_renamed_resource_has_the_labels_of_the_original_one() -> None:
    found = offer("nvidia.com/gpu.shared", 4, shared(4))
    assert (found.devices, found.memory, found.sharing) == (1, 23034 * MI, TIME_SLICING)


def test_slices_of_mig_strategy_single_are_gpus_with_the_memory_of_a_slice() -> None:
    labels = {
        **L4,
        "nvidia.com/mig.strategy": "single",
        "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb",
        "nvidia.com/gpu.memory": "4864",
        "nvidia.com/gpu.count": "7",
    }
    found = offer("nvidia.com/gpu", 7, labels)
    assert (found.devices, found.memory) == (7, 4864 * MI)


def test_slices_of_mig_strategy_mixed_have_their_own_labels() -> None:
    mixed = {
        **L4,
        "nvidia.com/gpu.count": "2",
        "nvidia.com/mig-3g.20gb.memory": "19968",
        "nvidia.com/mig-3g.20gb.count": "2",
        "nvidia.com/mig-3g.20gb.replicas": "3",
        "nvidia.com/mig-3g.20gb.product": "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb-SHARED",
    }
    whole, sliced = gpu_offers({"nvidia.com/mig-3g.20gb": 6, "nvidia.com/gpu": 1, "cpu": 4}, mixed)
    assert (whole.resource, whole.devices) == ("nvidia.com/gpu", 1)
    assert sliced == GpuOffer(
        "nvidia.com/mig-3g.20gb",
        6,
        2,
        19968 * MI,
        "nvidia.com/mig-3g.20gb.memory",
        product="NVIDIA-A100-SXM4-40GB-MIG-3g.20gb",
        sharing=TIME_SLICING,
        compute_capability=(8, 9),
    )


def test_gke_labels_its_shared_gpus_by_itself() -> None:
    labels = {
        "cloud.google.com/gke-gpu-sharing-strategy": "time-sharing",
        "cloud.google.com/gke-max-shared-clients-per-gpu": "3",
    }
    found = offer("nvidia.com/gpu", 6, labels)
    assert (found.devices, found.sharing, found.memory) == (2, TIME_SLICING, None)
    assert offer("nvidia.com/gpu", 6, {**labels, "cloud.google.com/gke-gpu-sharing-strategy": "mps"}).sharing == MPS


@pytest.mark.parametrize(
    ("labels", "memory", "selector"),
    [
        ({"amd.com/gpu.vram": "64G"}, 64 * GI - GI // 2, {"amd.com/gpu.vram": "64G"}),
        (
            {"amd.com/gpu.vram.16G": "1", "amd.com/gpu.vram.24G": "3"},
            16 * GI - GI // 2,
            {"amd.com/gpu.vram.16G": "1", "amd.com/gpu.vram.24G": "3"},
        ),
        ({"beta.amd.com/gpu.vram.8G": "1"}, 8 * GI - GI // 2, {"beta.amd.com/gpu.vram.8G": "1"}),
        ({"amd.com/gpu.vram": "much"}, None, {}),
    ],
)
def test_memory_of_an_amd_gpu_is_the_smallest_of_its_rounded_sizes(
    labels: dict[str, str], memory: int | None, selector: dict[str, str]
) -> None:
    found = offer("amd.com/gpu", 4, {**labels, "amd.com/gpu.product-name": "AMD_Instinct_MI210"})
    assert (found.memory, dict(found.selector), found.product) == (memory, selector, "AMD_Instinct_MI210")
    assert (found.devices, found.memory_label) == (4, "")


def test_an_intel_gpu_is_shared_if_there_are_more_units_than_gpus() -> None:
    labels = {"gpu.intel.com/device-id.0380-56c0.count": "2", "gpu.intel.com/product": "Flex_170"}
    found = offer("gpu.intel.com/i915", 20, labels)
    assert (found.devices, found.sharing, found.product) == (2, TIME_SLICING, "Flex_170")
    assert offer("gpu.intel.com/xe", 2, {}).devices == 2


def test_an_intel_gpu_has_its_part_of_the_memory_of_the_node() -> None:
    labels = {"gpu.intel.com/memory.max": "34359738368", "gpu.intel.com/device.count": "2"}
    found = offer("gpu.intel.com/i915", 2, labels)
    assert (found.memory, dict(found.selector)) == (16 * GI, labels)


def test_resources_of_gpus_are_recognized_by_their_names() -> None:
    gpus = (
        "nvidia.com/gpu",
        "nvidia.com/gpu.shared",
        "nvidia.com/mig-1g.5gb",
        "amd.com/gpu",
        "amd.com/cpx_nps4",
        "gpu.intel.com/i915",
        "gpu.intel.com/xe",
        "example.com/gpu",
    )
    others = ("cpu", "memory", "gpu.intel.com/i915_monitoring", "nvidia.com/gpumem", "rdma/hca", "amd.com/dpu")
    assert all(map(is_gpu_resource, gpus))
    assert not any(map(is_gpu_resource, others))


def test_a_node_has_the_gpus_of_its_best_state() -> None:
    raw = samples.node("n", devices={"nvidia.com/gpu": "2"})
    status = {**raw["status"], "allocatable": {"cpu": "4"}}  # type: ignore[dict-item]
    node = parse_node({**raw, "status": status})
    assert [(each.resource, each.count, each.memory) for each in node.gpus] == [("nvidia.com/gpu", 2, None)]


names = st.sampled_from(
    [
        *L4,
        "nvidia.com/mig-1g.5gb.memory",
        "nvidia.com/mig-1g.5gb.replicas",
        "amd.com/gpu.vram",
        "amd.com/gpu.vram.999999G",
        "gpu.intel.com/memory.max",
        "gpu.intel.com/device.count",
        "gpu.intel.com/device-id.0380-56c0.count",
        "cloud.google.com/gke-max-shared-clients-per-gpu",
    ]
)
values = (
    st.text("0123456789.-+eG² ٣", max_size=20)
    | st.integers(-(10**30), 10**30).map(str)
    | st.sampled_from(["0", "-0", "²", "1e9", "٣"])
)
resources = st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "amd.com/gpu", "gpu.intel.com/xe", "a.b/gpu"])


@given(st.dictionaries(names, values), st.dictionaries(resources, st.integers(0, 2**63 - 1)))
def test_any_labels_give_possible_offers(labels: dict[str, str], allocatable: dict[str, int]) -> None:
    offers = gpu_offers(allocatable, labels)
    assert len(offers) == sum(1 for count in allocatable.values() if count)
    for found in offers:
        assert 1 <= found.devices <= found.count == allocatable[found.resource]
        assert found.memory is None or 0 < found.memory < 2**60
        assert (found.memory is None) == (not found.memory_label and not found.selector)


def reported(labels: dict[str, str]) -> GpuOffer:
    """Return the offer of a node with two GPUs. A runner reported that each has 24 GiB."""
    offers = gpu_offers({"nvidia.com/gpu": 2}, labels)
    (found,) = with_reported_memory(offers, labels, {"nvidia.com/gpu": 24 * GI, "amd.com/gpu": GI})
    return found


def test_a_node_without_labels_has_the_memory_that_a_runner_reported_and_no_other_node_has_it() -> None:
    found = reported({HOSTNAME: "bare"})
    assert (found.memory, found.selector) == (24 * GI, ((HOSTNAME, "bare"),))


@pytest.mark.parametrize("labels", [{}, {HOSTNAME: "labelled", **L4}, {HOSTNAME: "a", "nvidia.com/gpu.replicas": "2"}])
def test_labels_are_believed_before_a_runner(labels: dict[str, str]) -> None:
    assert (reported(labels),) == gpu_offers({"nvidia.com/gpu": 2}, labels)
