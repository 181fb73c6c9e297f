"""The largest part of a model that fits on GPUs."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from corral_core.contracts.model_metadata import LayerGroup
from corral_core.weights.gpu_fit import GpuFit, fit_on_gpus
from corral_core.weights.memory.layer_split import GpuOptions, devices_of_layers
from corral_core.weights.memory_estimate import MIB, estimate_memory
from tests.core.weights.memory.test_device_memory import DIMENSIONS, LAYER, LOAD

GIB = 1 << 30
EXPERTS = replace(DIMENSIONS, layer_groups=(replace(LAYER, count=30, experts=180 * MIB),))
ROOM = st.lists(st.integers(0, 24 * GIB), min_size=1, max_size=4)


def _layers_of_gpus(fit: GpuFit) -> list[int]:
    gpus = len(fit.estimate.gpus)
    places = devices_of_layers(fit.total_layers - 1, gpus, fit.options)
    return [places.count(gpu) for gpu in range(gpus)]


def test_all_layers_fit_on_a_large_gpu() -> None:
    fit = fit_on_gpus(DIMENSIONS, LOAD, [24 * GIB])
    assert (fit.layers, fit.total_layers, fit.reason) == (31, 31, "")
    assert fit.estimate == estimate_memory(DIMENSIONS, LOAD, gpus=1)


def test_exactly_enough_memory_is_enough() -> None:
    (needed,) = estimate_memory(DIMENSIONS, LOAD, gpus=1).devices
    assert fit_on_gpus(DIMENSIONS, LOAD, [needed]).reason == ""
    short = fit_on_gpus(DIMENSIONS, LOAD, [needed - 1])
    assert short.layers < 31
    assert f"GPU 0 has {(needed - 1) // MIB} MiB of free memory and needs {needed // MIB} MiB" in short.reason


def test_layers_follow_the_free_memory_if_equal_ones_do_not_fit() -> None:
    fit = fit_on_gpus(DIMENSIONS, LOAD, [4 * GIB, 12 * GIB])
    first, second = _layers_of_gpus(fit)
    assert fit.reason == ""
    assert list(fit.options.shares) == [first, second]
    assert 2 * first < second


def test_gpus_have_equal_layers_if_they_fit() -> None:
    fit = fit_on_gpus(DIMENSIONS, LOAD, [24 * GIB, 12 * GIB])
    assert _layers_of_gpus(fit) == [16, 15]
    assert fit.estimate == estimate_memory(DIMENSIONS, LOAD, gpus=2)


def test_shares_that_are_given_are_kept() -> None:
    fit = fit_on_gpus(DIMENSIONS, LOAD, [24 * GIB, 24 * GIB], options=GpuOptions(shares=(1, 0)))
    assert _layers_of_gpus(fit) == [31, 0]


def test_a_gpu_without_memory_gets_no_layers() -> None:
    fit = fit_on_gpus(DIMENSIONS, LOAD, [100 * MIB, 24 * GIB])
    assert _layers_of_gpus(fit) == [0, 31]


def test_experts_leave_the_gpu_before_layers() -> None:
    fit = fit_on_gpus(EXPERTS, LOAD, [6 * GIB])
    assert fit.layers == 31
    assert 0 < fit.options.expert_layers_on_cpu < 30
    less = replace(fit.options, expert_layers_on_cpu=fit.options.expert_layers_on_cpu - 1)
    assert estimate_memory(EXPERTS, LOAD, gpus=1, options=less).devices[0] > 6 * GIB


def test_no_more_layers_than_wanted() -> None:
    fit = fit_on_gpus(DIMENSIONS, LOAD, [24 * GIB], options=GpuOptions(layers=5))
    assert (fit.layers, fit.reason) == (5, "at most 5 of 31 layers are to be on GPUs")


def test_nothing_fits_without_gpus_or_memory() -> None:
    assert fit_on_gpus(DIMENSIONS, LOAD, []).reason == "there is no GPU"
    nothing = fit_on_gpus(DIMENSIONS, LOAD, [GIB // 2])
    assert nothing.layers == 0
    assert nothing.estimate.vram == 0


@given(ROOM)
def test_what_fits_is_within_the_memory_and_one_layer_more_is_not(free: list[int]) -> None:
    fit = fit_on_gpus(DIMENSIONS, LOAD, free)
    for gpu, room in zip(fit.estimate.gpus, free, strict=True):
        assert gpu.total <= room or not gpu.engine
    assert bool(fit.reason) == (fit.layers < 31)
    if fit.layers < 31 and len(free) == 1:
        more = estimate_memory(DIMENSIONS, LOAD, gpus=1, options=GpuOptions(layers=fit.layers + 1))
        assert more.devices[0] > free[0]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), ROOM)
def test_layers_of_different_sizes_fit(sizes: list[int], free: list[int]) -> None:
    dims = replace(DIMENSIONS, layer_groups=tuple(LayerGroup(1, size * MIB) for size in sizes))
    fit = fit_on_gpus(dims, LOAD, free)
    for gpu, room in zip(fit.estimate.gpus, free, strict=True):
        assert gpu.total <= room or not gpu.engine
