"""Memory on the host and on GPUs by the distribution of the layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.contracts.model_metadata import LayerGroup, ModelDimensions
from corral_core.weights.load_config import LoadConfig, embedding_context
from corral_core.weights.memory.device_memory import GPU_FIXED_BYTES
from corral_core.weights.memory.layer_split import GpuOptions
from corral_core.weights.memory_estimate import MIB, estimate_memory

LAYER = LayerGroup(1, weights=200 * MIB, keys=1024, values=1024)
DIMENSIONS = ModelDimensions(
    weights=(100 + 30 * 200 + 150) * MIB,
    layers=30,
    embedding=4096,
    vocabulary=128256,
    keys=30 * 1024,
    values=30 * 1024,
    padded_values=30 * 1024,
    heads=32,
    query=4096,
    key_value=2048,
    feed_forward=14336,
    input_weights=100 * MIB,
    output_weights=150 * MIB,
    layer_groups=(replace(LAYER, count=30),),
)
LOAD = LoadConfig(4096, 4)
KV_OF_LAYER = 4 * 4096 * 2 * 2048
STATE, MASK = 4 * 512 * 4096, 2 * 512 * 4096


def test_on_one_gpu_only_the_input_stays_in_host_memory() -> None:
    made = estimate_memory(DIMENSIONS, LOAD, gpus=1)
    (gpu,) = made.gpus
    assert (made.weights, made.kv_cache) == (100 * MIB, 0)
    assert (gpu.weights, gpu.kv_cache) == ((30 * 200 + 150) * MIB, 30 * KV_OF_LAYER)
    assert made.total < estimate_memory(DIMENSIONS, LOAD).total - 30 * 200 * MIB


def test_two_gpus_share_layers_and_the_second_has_the_output() -> None:
    first, second = estimate_memory(DIMENSIONS, LOAD, gpus=2).gpus
    assert (first.weights, second.weights) == (16 * 200 * MIB, (14 * 200 + 150) * MIB)
    assert (first.kv_cache, second.kv_cache) == (16 * KV_OF_LAYER, 14 * KV_OF_LAYER)


def test_layers_that_are_not_offloaded_have_their_cache_in_host_memory() -> None:
    made = estimate_memory(DIMENSIONS, LOAD, gpus=1, options=GpuOptions(layers=11))
    assert (made.weights, made.kv_cache) == ((100 + 20 * 200) * MIB, 20 * KV_OF_LAYER)
    assert (made.gpus[0].weights, made.gpus[0].kv_cache) == ((10 * 200 + 150) * MIB, 10 * KV_OF_LAYER)
    assert made.compute == estimate_memory(DIMENSIONS, LOAD).compute


def test_experts_of_the_first_layers_may_stay_in_host_memory() -> None:
    groups = (replace(LAYER, count=30, experts=180 * MIB),)
    experts = replace(DIMENSIONS, layer_groups=groups)
    made = estimate_memory(experts, LOAD, gpus=1, options=GpuOptions(expert_layers_on_cpu=10))
    assert (made.weights, made.kv_cache) == ((100 + 10 * 180) * MIB, 0)
    assert made.gpus[0].weights == (30 * 200 - 10 * 180 + 150) * MIB


@pytest.mark.parametrize(("largest", "most"), [(0, KV_OF_LAYER), (100 * MIB, 100 * MIB)])
def test_tensors_of_layers_in_host_memory_pass_through_the_first_gpu(largest: int, most: int) -> None:
    dims = replace(DIMENSIONS, largest_tensor=largest)
    whole = estimate_memory(dims, LOAD, gpus=2).gpus
    half = estimate_memory(dims, LOAD, gpus=2, options=GpuOptions(layers=16)).gpus
    alone = estimate_memory(dims, LOAD, gpus=1).gpus[0].compute
    assert half[0].compute - alone == most + 2 * STATE + MASK
    assert half[1].compute == alone < whole[1].compute


def test_several_gpus_have_copies_of_the_inputs() -> None:
    (alone,) = estimate_memory(DIMENSIONS, LOAD, gpus=1).gpus
    first, second = estimate_memory(DIMENSIONS, LOAD, gpus=2).gpus
    assert first.compute - alone.compute >= 4 * STATE + 3 * MASK
    assert second.compute - first.compute == 4 * STATE


def test_several_gpus_have_copies_of_what_recurrent_layers_convolve() -> None:
    without = replace(DIMENSIONS, layer_groups=(LayerGroup(30, 200 * MIB, state=MIB),))
    convolving = replace(without, recurrent=2048)
    made = (estimate_memory(dims, LOAD, gpus=2).gpus for dims in (without, convolving))
    added = [gpu.compute - before.compute for before, gpu in zip(*made, strict=True)]
    assert added == [4 * 4 * 512 * 2048, 3 * 4 * 4 * 512 * 2048]


def test_every_gpu_has_a_fixed_part_and_the_reserved_memory() -> None:
    made = estimate_memory(DIMENSIONS, LOAD, gpus=2, options=GpuOptions(shares=(1, 0), overhead=5 * MIB))
    assert made.devices[1] == GPU_FIXED_BYTES + 5 * MIB
    assert made.devices[0] == made.gpus[0].engine + GPU_FIXED_BYTES + 5 * MIB


def test_recurrent_state_is_with_its_layer() -> None:
    groups = (LayerGroup(1, 200 * MIB, state=MIB), LayerGroup(1, 200 * MIB))
    mixed = replace(DIMENSIONS, layer_groups=groups, state=MIB, layer_state=MIB)
    made = estimate_memory(mixed, LOAD, gpus=2, options=GpuOptions(shares=(1, 2)))
    assert [gpu.kv_cache for gpu in made.gpus] == [4 * 4 * MIB, 0]


def test_embeddings_have_a_context_on_the_gpu() -> None:
    load = LoadConfig(4096, 1, generates=False, embedding=embedding_context(4096, chunked=True))
    cpu, made = (estimate_memory(DIMENSIONS, load, gpus=gpus) for gpus in (0, 1))
    assert made.gpus[0].embedding == cpu.embedding > made.embedding > 0
    assert made.gpus[0].kv_cache == made.gpus[0].compute == 0


def test_adapters_are_on_every_gpu_that_has_layers() -> None:
    made = estimate_memory(DIMENSIONS, LOAD, gpus=2, adapters=3 * MIB, options=GpuOptions(shares=(1, 0)))
    assert [gpu.adapters for gpu in made.gpus] == [3 * MIB, 0]
    assert made.adapters == 0


def test_the_text_names_the_memory_of_every_gpu() -> None:
    made = estimate_memory(DIMENSIONS, LOAD, gpus=2)
    first, second = (size // MIB for size in made.devices)
    assert str(made).startswith(
        f"{first} MiB + {second} MiB of GPU memory, and of host memory {made.total // MIB} MiB:"
    )


@pytest.mark.parametrize("flash", [None, False])
@given(offloaded=st.integers(0, 40), gpus=st.integers(1, 8))
def test_nothing_is_lost_or_counted_twice(flash: bool | None, offloaded: int, gpus: int) -> None:
    load = replace(LOAD, flash_attention=flash)
    made = estimate_memory(DIMENSIONS, load, gpus=gpus, options=GpuOptions(layers=offloaded))
    assert made.weights + sum(gpu.weights for gpu in made.gpus) == DIMENSIONS.weights
    assert made.kv_cache + sum(gpu.kv_cache for gpu in made.gpus) == estimate_memory(DIMENSIONS, load).kv_cache
