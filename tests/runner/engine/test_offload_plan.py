"""Which GPUs a model gets, decided without a GPU: none is asked for, or none is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import EngineOptions, GPUOptions
from corral_server.runner.engine.loading import offload
from corral_server.runner.engine.loading.offload import OffloadPlan, plan_offload
from corral_server.runner.llama.devices import Device
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.memory_breakdown import DeviceMemory
from corral_server.runner.llama.model import load_mode
from corral_server.runner.llama.placement import Placement

WEIGHTS = Path("weights.gguf")
GPU = Device("CUDA0", "NVIDIA L4", free=1 << 30, total=1 << 30, handle=0)


def plan(gpu: GPUOptions, *devices: Device) -> OffloadPlan:
    return plan_offload(WEIGHTS, EngineOptions(gpu=gpu), devices)


@pytest.mark.parametrize("gpu", [GPUOptions(), GPUOptions(1, layers=0)], ids=["no GPU", "no layer"])
def test_a_model_for_the_cpu_uses_no_gpu_of_the_machine(gpu: GPUOptions) -> None:
    assert plan(gpu, GPU) == OffloadPlan()


def test_a_model_that_takes_any_gpus_runs_without_one_for_no_reason() -> None:
    assert plan(GPUOptions(None)) == OffloadPlan()


def test_a_model_without_its_gpus_runs_on_the_cpu_with_the_reason() -> None:
    expected = "the Model has 2 GPUs, but llama.cpp finds none: check the driver and the runner's image"
    assert plan(GPUOptions(2)) == OffloadPlan(reason=expected)


@pytest.mark.parametrize("count", [1, None])
def test_a_model_that_must_be_on_gpus_is_refused_without_one(count: int | None) -> None:
    with pytest.raises(LoadFailed, match=r"llama\.cpp finds n.*: check the driver"):
        plan(GPUOptions(count, "full"))


class FakeProbe:
    """A model of ten layers that takes 600 MiB of the first GPU and 300 MiB of the second, however it is placed."""

    layers, train_context, weights_bytes = 10, 4096, 1

    def __init__(self, path: Path, placement: Placement) -> None:
        self._devices = placement.devices

    def device_memory(self, contexts: object) -> dict[str, DeviceMemory]:
        sizes = (600 << 20, 300 << 20)
        return {device.name: DeviceMemory(size, 0, 0) for device, size in zip(self._devices, sizes, strict=False)}

    def close(self) -> None:
        """Do nothing."""


def test_the_projector_takes_memory_of_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "MemoryProbe", FakeProbe)
    other = replace(GPU, name="CUDA1")
    gpu = GPUOptions(2, layers=10, projector=100 << 20)
    assert plan(gpu, GPU, other).predicted == {"CUDA0": 700 << 20, "CUDA1": 300 << 20}
    with pytest.raises(LoadFailed, match=r"CUDA0 .* needs 1600 MiB"):
        plan(replace(gpu, offload="full", projector=1000 << 20), GPU, other)


def test_a_split_by_rows_is_not_planned() -> None:
    """llama.cpp has no sizes of split buffers before it allocates them."""
    planned = plan(GPUOptions(1, split_mode="row"), GPU)
    assert (planned.placement.devices, planned.placement.split_mode, planned.predicted) == ((GPU,), "row", {})


def test_the_file_is_mapped_unless_a_gpu_needs_pages_that_are_not_in_memory(tmp_path: Path) -> None:
    cached, sparse = tmp_path / "cached.gguf", tmp_path / "sparse.gguf"
    cached.write_bytes(b"x" * 10_000)
    with sparse.open("wb") as file:
        file.truncate(1 << 20)
    modes = {
        (path.stem, on_gpus, lock): load_mode(path, on_gpus=on_gpus, lock=lock)
        for path in (cached, sparse)
        for on_gpus in (True, False)
        for lock in (True, False)
    }
    auto, none, mlock, mmap_mlock = -1, 0, 2, 3
    assert {key for key, mode in modes.items() if mode == none} == {("sparse", True, False)}
    assert {key for key, mode in modes.items() if mode == mlock} == {("sparse", True, True)}
    assert {mode for key, mode in modes.items() if key[:2] != ("sparse", True)} == {auto, mmap_mlock}
