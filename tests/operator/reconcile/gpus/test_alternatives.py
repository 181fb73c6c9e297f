"""The ways to run a model on the kinds of GPUs that nodes offer, best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from corral_core.base.quantities import resource_amounts
from corral_core.model.model import GPUSpec
from corral_core.planning.gpus.offers import GpuOffer, gpu_offers
from corral_operator.reconcile.gpus.alternatives import Alternative, WeightsLoad, alternatives, requested_as_given
from tests.support.gpu_samples import A100, CONFIGS, GPU, L4, MIG, SHARED, SLICES, NodeKind, dimensions, gpu_kind


def offers(*kinds: NodeKind) -> frozenset[GpuOffer]:
    return frozenset(one for kind in kinds for one in gpu_offers(resource_amounts(kind.resources), kind.labels))


def found(size: float, *kinds: NodeKind, spread: bool = False, **gpu: object) -> tuple[list[Alternative], list[str]]:
    """Return the alternatives and the notes for a model of ``size`` GiB."""
    spec = GPUSpec.model_validate(gpu, by_name=True)
    each = list(alternatives(spec, WeightsLoad(dimensions(size), CONFIGS), offers(*kinds), spread=spread))
    return [one for one in each if isinstance(one, Alternative)], [one for one in each if isinstance(one, str)]


def ways(size: float, *kinds: NodeKind, spread: bool = False, **gpu: object) -> list[tuple[str, int, int]]:
    """Return resource, number of GPUs and parallel requests of each alternative."""
    each, _ = found(size, *kinds, spread=spread, **gpu)
    return [
        (one.gpus.resource, one.gpus.count, one.estimate.load_config.parallel)
        if one.gpus is not None
        else ("cpu", 0, one.estimate.load_config.parallel)
        for one in each
    ]


def test_one_gpu_comes_first_then_all_of_a_node_then_a_part_then_the_cpu() -> None:
    parts = [(GPU, 4, 1)]
    assert ways(8, A100) == [(GPU, 1, 4), (GPU, 1, 1), (GPU, 4, 4), (GPU, 4, 1), *parts, ("cpu", 0, 4), ("cpu", 0, 1)]


def test_a_model_too_large_for_one_gpu_gets_all_of_a_node() -> None:
    each, notes = found(200, A100)
    assert each[0].gpus is not None
    assert (each[0].gpus.count, each[0].estimate.load_config.parallel) == (4, 4)
    assert any(note.startswith("one GPU needs") and "the largest has 80 GiB" in note for note in notes)


def test_fewer_parallel_requests_come_before_more_gpus() -> None:
    each, _ = found(78, A100)
    assert each[0].gpus is not None
    assert (each[0].gpus.count, each[0].estimate.load_config.parallel) == (1, 1)


def test_with_spread_all_gpus_of_a_node_come_first() -> None:
    assert ways(8, A100, L4, spread=True)[:4] == [(GPU, 4, 4), (GPU, 4, 1), (GPU, 1, 4), (GPU, 1, 1)]


def test_the_smallest_gpus_that_suffice_come_first() -> None:
    assert ways(8, A100, SLICES)[:2] == [(MIG, 1, 4), (GPU, 1, 4)]
    assert ways(30, A100, SLICES)[0] == (GPU, 1, 4)


def test_a_model_gets_one_slice_and_never_several_since_cuda_uses_one() -> None:
    assert ways(16, SLICES)[0] == (MIG, 1, 4)
    each, _ = found(30, SLICES)
    assert {one.gpus.count for one in each if one.gpus is not None} == {1}
    single = gpu_kind(GPU, 2, 19968, "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb")
    assert {one.gpus.count for one in found(30, single)[0] if one.gpus is not None} == {1}


def test_all_of_a_node_is_counted_for_each_resource_by_itself() -> None:
    eight, sixteen = gpu_kind(GPU, 8, 23034, "NVIDIA-L4"), gpu_kind("amd.com/gpu", 16, 0, "MI300X")
    amd = NodeKind(sixteen.resources, {"amd.com/gpu.vram": "16G"})
    assert [way for way in ways(90, eight, amd) if way[1] == 8 and way[0] != GPU] == []


def test_a_part_is_on_gpus_if_not_all_fits_and_its_memory_is_within_the_gpu() -> None:
    each, _ = found(40, L4)
    assert each[0].gpus is not None
    assert each[0].gpus.capacity == 23034 * 2**20
    assert 0 < each[0].gpus.memory <= each[0].gpus.capacity
    assert "of 33 layers on 1 nvidia.com/gpu" in each[0].why
    assert each[0].estimate.total < 40 * 2**30


def test_full_offload_never_leaves_layers_on_the_cpu() -> None:
    each, _ = found(500, A100, L4, offload="full")
    assert [one.gpus.capacity for one in each if one.gpus is not None] == [0]
    assert found(8, offload="full")[0][-1].gpus is not None


@pytest.mark.parametrize("gpu", [{"count": 0}, {"offload": "none"}])
def test_a_model_for_the_cpu_has_no_other_way(gpu: Mapping[str, Any]) -> None:
    assert ways(8, A100, **gpu) == [("cpu", 0, 4), ("cpu", 0, 1)]


def test_a_given_count_is_taken_and_never_replaced_by_the_cpu() -> None:
    assert ways(8, A100, count=2) == [(GPU, 2, 4), (GPU, 2, 1), (GPU, 2, 1), (GPU, 2, 1)]
    assert ways(8, count=2) == [(GPU, 2, 1)]


def test_gpus_of_unknown_memory_are_used_for_the_layers_that_fit() -> None:
    bare = NodeKind({GPU: "2"}, {})
    each, _ = found(8, bare)
    assert each[0].gpus is not None
    assert (each[0].gpus.count, each[0].gpus.memory) == (1, 0)
    assert each[0].estimate.total > 8 * 2**30, "all of the model may stay on the host"
    assert ways(8, bare, count=2)[0] == (GPU, 2, 1)


def test_gpus_of_an_unknown_vendor_are_used_only_by_name() -> None:
    bare = NodeKind({"example.com/gpu": "1"}, {})
    assert [one[0] for one in ways(8, bare)] == ["cpu", "cpu"]
    assert ways(8, bare, resource="example.com/gpu")[0][0] == "example.com/gpu"


def test_exclusive_models_avoid_shared_gpus_and_shared_ones_take_one_replica() -> None:
    assert ways(6, SHARED) == [("cpu", 0, 4), ("cpu", 0, 1)]
    assert ways(6, SHARED, A100, sharing="shared")[0] == (GPU, 1, 4)
    each, notes = found(6, SHARED, A100, sharing="shared")
    assert all(one.gpus is None or one.gpus.count == 1 for one in each)
    assert any("spec.gpu.sharing is shared" in note for note in notes)


@pytest.mark.parametrize(
    ("gpu", "resource"),
    [
        ({"product": "NVIDIA-L4"}, GPU),
        ({"memory": "40Gi"}, GPU),
        ({"compute_capability": "8.9"}, GPU),
        ({"resource": MIG}, MIG),
        ({"product": "NVIDIA-H100"}, "cpu"),
    ],
)
def test_the_fields_of_the_model_choose_among_the_offers(gpu: Mapping[str, Any], resource: str) -> None:
    assert ways(8, L4, A100, SLICES, **gpu)[0][0] == resource


def test_alternatives_are_computed_once_and_as_far_as_they_are_read() -> None:
    spec, load = GPUSpec(), WeightsLoad(dimensions(8.5), CONFIGS)
    first = next(iter(alternatives(spec, load, offers(A100))))
    assert next(iter(alternatives(spec, load, offers(A100)))) is first
    assert len(list(alternatives(spec, load, offers(A100)))) == len(list(alternatives(spec, load, offers(A100))))


def test_without_metadata_only_a_given_count_is_requested() -> None:
    assert requested_as_given(GPUSpec()) is None
    given = requested_as_given(GPUSpec(count=2, resource="amd.com/gpu"))
    assert given is not None
    assert (given.resource, given.count) == ("amd.com/gpu", 2)
