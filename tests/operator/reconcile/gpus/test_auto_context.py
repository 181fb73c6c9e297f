"""The context length of ``contextLength: auto`` on the GPUs of a way to run the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.quantities import resource_amounts
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import GPUSpec, ModelSpec
from corral_core.planning.gpus.offers import gpu_offers
from corral_core.weights.load_config import load_configs, load_request, longer_configs
from corral_operator.reconcile.gpus.alternatives import Alternative, WeightsLoad, alternatives
from tests.operator import samples
from tests.support.gpu_samples import A100, GPU, L4, SHARED, NodeKind, dimensions, gpu_kind

RTX_4090 = gpu_kind(GPU, 1, 24564, "NVIDIA-GeForce-RTX-4090", minor=9)
PAIR = gpu_kind(GPU, 2, 24564, "NVIDIA-GeForce-RTX-4090", minor=9)
METADATA = replace(samples.METADATA, context_length=1 << 20)


def ways(
    size: float, *kinds: NodeKind, spec: ModelSpec | None = None, metadata: ModelMetadata = METADATA, **gpu: object
) -> list[Alternative]:
    """Return the alternatives for a model of ``size`` GiB with a small KV cache."""
    dims = replace(dimensions(size), keys=64, values=64, padded_values=64)
    dims = replace(dims, layer_groups=tuple(replace(each, keys=2, values=2) for each in dims.layer_groups))
    request = load_request(spec or ModelSpec(source="file:///a.gguf"), {})
    load = WeightsLoad(dims, load_configs(request, metadata), longer=longer_configs(request, metadata))
    offers = frozenset(one for kind in kinds for one in gpu_offers(resource_amounts(kind.resources), kind.labels))
    found = alternatives(GPUSpec.model_validate(gpu, by_name=True), load, offers)
    return [one for one in found if isinstance(one, Alternative)]


def context(each: Alternative) -> tuple[int, int]:
    """Return the parallel requests and the context length of each."""
    config = each.estimate.load_config
    return config.parallel, config.context_length


@pytest.mark.parametrize(
    ("kind", "length"),
    [(L4, 4096), (RTX_4090, 32_768), (A100, 262_144), (SHARED, 4096)],
    ids=["L4", "4090", "A100", "T4"],
)
def test_the_context_length_follows_the_memory_of_the_gpus(kind: NodeKind, length: int) -> None:
    sharing = "shared" if kind is SHARED else "exclusive"
    assert context(ways(2, kind, sharing=sharing)[0]) == (4, length)


def test_the_memory_of_all_gpus_of_the_runner_counts() -> None:
    several = next(each for each in ways(2, PAIR) if each.gpus is not None and each.gpus.count == 2)
    assert context(several) == (4, 262_144)


def test_the_context_never_exceeds_the_trained_one() -> None:
    assert context(ways(2, A100, metadata=replace(METADATA, context_length=8192))[0]) == (4, 8192)
    assert context(ways(2, RTX_4090, metadata=replace(METADATA, context_length=2048))[0]) == (4, 2048)


def test_a_context_that_is_set_is_taken_on_any_gpu() -> None:
    spec = ModelSpec.model_validate({"source": "file:///a.gguf", "contextLength": 1024})
    assert context(ways(2, A100, spec=spec)[0]) == (4, 1024)


def test_a_context_that_does_not_fit_beside_the_slots_is_not_taken() -> None:
    dims = dimensions(8)
    request = load_request(ModelSpec(source="file:///a.gguf"), {})
    load = WeightsLoad(dims, load_configs(request, METADATA), longer=longer_configs(request, METADATA))
    offers = frozenset(gpu_offers(resource_amounts(A100.resources), A100.labels))
    first = next(iter(alternatives(GPUSpec(), load, offers)))
    assert isinstance(first, Alternative)
    assert context(first) == (4, 32_768)
    assert max(first.estimate.devices) <= 81920 << 20


def test_the_smallest_gpu_that_the_way_admits_counts() -> None:
    assert context(ways(2, L4, A100)[0]) == (4, 4096)
    assert context(ways(2, L4, A100, memory="40Gi")[0]) == (4, 262_144)


def test_the_default_length_on_the_same_gpus_follows_and_the_cpu_has_it() -> None:
    each = ways(2, RTX_4090)
    assert [context(one) for one in each[:4]] == [(4, 32_768), (4, 4096), (1, 32_768), (1, 4096)]
    assert {context(one)[1] for one in each if one.gpus is None} == {4096}


def test_the_reason_names_a_context_that_follows_from_the_gpus() -> None:
    each = ways(2, RTX_4090)
    assert each[0].why.endswith("for 4 parallel requests of 32768 tokens")
    assert each[1].why.endswith("for 4 parallel requests")
