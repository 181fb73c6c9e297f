"""Prediction of the memory of the host and each GPU compared with what llama.cpp plans on Vulkan devices.

The devices are Mesa's lavapipe, several times. A tensor on it has at most 128 MiB, so the headers of real models have
fewer tokens and experts here. llama.cpp allocates nothing but recurrent state (``no_alloc``). Child processes measure,
because llama.cpp aborts on some load configs.

Per load config and distribution: weights, KV cache with recurrent state, and compute buffers in MiB as llama.cpp counts
them, and the differences of the prediction, in MiB and for all together in percent. ``below`` counts predictions below
what was measured, ``above_percent`` is the highest one of a GPU with all layers on GPUs, and ``partly_above_percent``
that with layers or experts in host memory.

Left out: DeepSeek V3 and, with layers in host memory, LFM2. lavapipe has no flash attention for the heads of the one,
and llama.cpp switches it off for the other.

    python bench/gpu_memory_prediction.py [MODEL...]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corral_core.contracts.model_metadata import ModelDimensions
from corral_core.weights.gguf_metadata import read_metadata
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory.layer_split import GpuOptions
from corral_core.weights.memory_estimate import MIB, estimate_memory
from corral_server.runner.llama.context import generation_options
from corral_server.runner.llama.devices import gpu_devices
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.memory_probe import MemoryProbe
from corral_server.runner.llama.placement import Placement
from corral_server.system.compute_buffers import plan_compute_buffers
from scripts import llama_vulkan
from tests.support.gguf_files import FakeTensor
from tests.support.real_models import RealModel, real_models
from tests.support.vulkan import vulkan_environment

GPUS = (1, 2, 3)
LARGEST_TENSOR = 1 << 27
"""Bytes of a tensor on lavapipe (``maxStorageBufferRange``)."""
LARGEST_VOCABULARY = LARGEST_TENSOR // (4 * 512)
"""Tokens: llama.cpp asks a device for the result of a whole batch before it puts the output layer there."""
LARGEST_STATE = 288 << 20
"""Bytes of recurrent state, which is allocated."""
WITHOUT_FLASH_ATTENTION = ("DeepSeek-V3",)
WHOLE_ONLY = ("LFM2-1.2B",)


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes of weights, cache and compute buffers on the host (``gpu`` is -1) or one of ``gpus`` GPUs."""

    config: LoadConfig
    options: GpuOptions
    gpus: int
    gpu: int
    measured: tuple[int, int, int]
    predicted: tuple[int, int, int]

    @property
    def above_percent(self) -> float:
        return 100.0 * (sum(self.predicted) / max(1, sum(self.measured)) - 1)

    @property
    def below(self) -> bool:
        """Whether any part is below what was measured."""
        return any(predicted < measured for predicted, measured in zip(self.predicted, self.measured, strict=True))

    @property
    def whole(self) -> bool:
        """Whether all layers are on GPUs."""
        return self.options == GpuOptions()

    def __str__(self) -> str:
        config, options = self.config, self.options
        place = f"GPU {self.gpu + 1}/{self.gpus}" if self.gpu >= 0 else f"host/{self.gpus}"
        layers = "all" if options.layers is None else str(options.layers)
        key = f"{config.context_length:7} x{config.parallel} {config.kv_cache_type:>5} {layers:>6} "
        key += f"{options.expert_layers_on_cpu:7} {place:>7}"
        pairs = list(zip(self.predicted, self.measured, strict=True))
        sizes = " ".join(f"{size / MIB:8.1f}" for size in self.measured)
        differences = " ".join(f"{(predicted - measured) / MIB:+7.1f}" for predicted, measured in pairs)
        return f"{key} | {sizes} | {differences} {self.above_percent:+6.1f} %{' BELOW' if self.below else ''}"


def configs(trained: int) -> Iterator[LoadConfig]:
    """Yield load configs of a generative model."""
    yield LoadConfig(min(4096, trained), 4)
    yield LoadConfig(min(32768, trained), 1)
    yield LoadConfig(min(16384, trained), 4, kv_cache_type="q8_0")


def distributions(dims: ModelDimensions, *, whole_only: bool) -> Iterator[GpuOptions]:
    """Yield distributions: all layers, half of them, and all without the experts of every second one."""
    yield GpuOptions()
    if whole_only:
        return
    yield GpuOptions(layers=dims.layers // 2)
    if dims.experts_used:
        yield GpuOptions(expert_layers_on_cpu=dims.layers // 2)


def within_buffers(model: RealModel) -> RealModel:
    """Return the model with so few tokens and experts that each tensor fits a buffer of lavapipe."""
    values, key = dict(model.values), model.architecture
    vocabulary, experts = values[f"{key}.vocab_size"], values.get(f"{key}.expert_count", 0)
    assert isinstance(vocabulary, int)
    assert isinstance(experts, int)
    stacked = [tensor for tensor in model.tensors if len(tensor.shape) == 3]
    tokens = min(LARGEST_VOCABULARY, _fitting(next(each for each in model.tensors if "token_embd." in each.name)))
    count = min((_fitting(tensor) for tensor in stacked), default=experts)
    values[f"{key}.vocab_size"] = tokens = min(tokens, vocabulary)
    if experts:
        used = values[f"{key}.expert_used_count"]
        assert isinstance(used, int)
        values |= {f"{key}.expert_count": count, f"{key}.expert_used_count": min(used, count)}
    tensors = []
    for tensor in model.tensors:
        last = tensor.shape[-1]
        if last == vocabulary:
            last = tokens
        elif last == experts and re.search(r"_exps|ffn_gate_inp\.|probs", tensor.name):
            last = count
        tensors.append(replace(tensor, shape=(*tensor.shape[:-1], last)))
    return replace(model, values=values, tensors=tuple(tensors))


def _fitting(tensor: FakeTensor) -> int:
    """Return the largest last dimension that fits a buffer."""
    count = tensor.shape[-1]
    while replace(tensor, shape=(*tensor.shape[:-1], count)).size > LARGEST_TENSOR:
        count //= 2
    return count


def measure(path: Path, *, whole_only: bool) -> list[Row]:
    """Measure the weights on each number of GPUs."""
    metadata = read_metadata(path, plan_compute_buffers)
    dims, rows = metadata.dimensions, list[Row]()
    assert dims is not None
    for gpus, options in product(GPUS, distributions(dims, whole_only=whole_only)):
        placement = Placement(
            gpu_devices()[:gpus],
            layers=-1 if options.layers is None else options.layers,
            tensor_split=(1.0,) * gpus,
            expert_layers_on_cpu=options.expert_layers_on_cpu,
        )
        probe = MemoryProbe(path, placement)
        for config in configs(metadata.context_length):
            if _is_possible(dims, config):
                rows += _rows(probe, dims, config, options=options, gpus=gpus)
        probe.close()
    return rows


def _is_possible(dims: ModelDimensions, config: LoadConfig) -> bool:
    """Whether lavapipe has memory for the largest tensor of the cache, and this machine for the state."""
    keys = max((max(group.keys, group.values) for group in dims.layer_groups), default=0)
    cache = 2 * keys * config.parallel * config.context_length
    return cache <= LARGEST_TENSOR and 4 * dims.state * config.parallel <= LARGEST_STATE


def _rows(
    probe: MemoryProbe, dims: ModelDimensions, config: LoadConfig, *, options: GpuOptions, gpus: int
) -> Iterator[Row]:
    try:
        measured = probe.memory_by_device(generation_options(config))
    except LoadFailed:
        return  # heads whose length is no multiple of the block size of the cache's type
    estimate = estimate_memory(dims, config, gpus=gpus, options=options)
    predicted = [(estimate.weights, estimate.kv_cache, estimate.compute)]
    predicted += [(gpu.weights, gpu.kv_cache, gpu.compute) for gpu in estimate.gpus]
    handles = (0, *(device.handle for device in gpu_devices()[:gpus]))
    for gpu, (handle, expected) in enumerate(zip(handles, predicted, strict=True), -1):
        found = measured[handle]
        yield Row(config, options, gpus, gpu, (found.model, found.context, found.compute), expected)


def _measured_by_child(model: RealModel, folder: Path) -> list[Row]:
    path = within_buffers(model).write(folder)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure, path, whole_only=model.name in WHOLE_ONLY).result()
        except BrokenProcessPool:
            print("llama.cpp aborts")
            return []


def main() -> None:
    llama_vulkan.library()
    summary = {"rows": 0, "below": 0, "above_percent": 0.0, "partly_above_percent": 0.0}
    names = sys.argv[1:] or [each.name for each in real_models()[:-1] if each.name not in WITHOUT_FLASH_ATTENTION]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as backends:
        os.environ |= vulkan_environment(Path(backends), devices=max(GPUS))
        os.environ["GGML_NO_BACKTRACE"] = "1"
        for model in (each for each in real_models() if each.name in names):
            print(f"{model.name}\ncontext  x p cache layers experts         |  weights    cache  compute | differences")
            for row in _measured_by_child(model, Path(folder)):
                print(row)
                _add(summary, row)
    print(json.dumps({name: round(value, 2) for name, value in summary.items()}))


def _add(summary: dict[str, float], row: Row) -> None:
    summary["rows"] += 1
    summary["below"] += row.below
    if row.gpu >= 0:
        key = "above_percent" if row.whole else "partly_above_percent"
        summary[key] = max(summary[key], row.above_percent)


if __name__ == "__main__":
    main()
