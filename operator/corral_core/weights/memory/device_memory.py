"""Memory of llama.cpp in host memory and on each GPU, by the distribution of the layers.

- Weights, KV cache and recurrent state are where their layers are, and exact. Token embeddings, experts of
  ``expert_layers_on_cpu`` and the layers that are on no GPU are in host memory.
- The compute buffers of a GPU are at most those of the whole graph on a CPU, and the further copies of a batch's inputs
  that llama.cpp keeps for pipelining with several GPUs (``GGML_SCHED_MAX_COPIES``). From the GPU before, two tensors as
  large as the hidden state come in: the residual and the result of the last layer. Of a Mamba layer, the input of its
  convolution comes in too, and its result goes back.
- The projector is on the first GPU if any layer is on a GPU, else in host memory.
- The first GPU computes large batches of layers in host memory too (``op_offload``): a tensor of their weights or the
  cache of one layer is in its compute buffer at a time. That is with flash attention, which llama.cpp switches off for
  some models with layers in host memory (LFM2) unless it is set.

All of this was compared with llama.cpp on Vulkan devices: ``bench/gpu_memory_prediction.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corral_core.contracts.model_metadata import LayerGroup, ModelDimensions
from corral_core.weights.load_config import MAX_EMBEDDING_INPUTS, LoadConfig
from corral_core.weights.memory.context_memory import (
    FIXED_COMPUTE_BYTES,
    cells,
    compute_buffers,
    convolved,
    embedding_compute,
    embedding_load,
    embedding_outputs,
    hidden,
    logits,
    masks,
    padded_width,
    row_bytes,
)
from corral_core.weights.memory.layer_groups import each_layer
from corral_core.weights.memory.layer_split import GpuOptions, devices_of_layers

GPU_FIXED_BYTES = 1 << 30
"""Memory of a GPU that the driver, its context and the libraries take of the total that NVML and node labels report.

On an RTX 4090 these are 940 MiB: CUDA has 24,080 of 24,564 MiB, and of these llama.cpp cannot account for 456
(https://github.com/ggml-org/llama.cpp/pull/15860). llama.cpp's ``--fit`` leaves as much free. On an RTX PRO 6000
Blackwell, with 97,887 MiB, these are 1,389 MiB (https://github.com/ggml-org/llama.cpp/issues/27953).
"""
INPUT_COPIES = 4
"""Copies of a batch's inputs with several GPUs: ``GGML_SCHED_MAX_COPIES`` in ``ggml/src/ggml-backend.cpp``."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of llama.cpp on one device; ``fixed`` is what the device needs besides.

    ``projector`` has its weights and its compute buffer.
    """

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    embedding: int = 0
    adapters: int = 0
    fixed: int = 0
    projector: int = 0

    @property
    def engine(self) -> int:
        """Memory of llama.cpp itself."""
        return self.weights + self.kv_cache + self.compute + self.embedding + self.adapters + self.projector

    @property
    def total(self) -> int:
        return self.engine + self.fixed


def device_memory(
    dims: ModelDimensions, config: LoadConfig, *, gpus: int, adapters: int = 0, options: GpuOptions
) -> tuple[DeviceMemory, ...]:
    """Return the memory of the host, without the process, and of each of ``gpus`` GPUs (at least one)."""
    split = LayerSplit(dims, gpus, options)
    context = embedding_load(config)
    found = []
    for device in (None, *range(gpus)):
        cache = split.cache(config, device, sequences=config.parallel) if config.generates else 0
        compute = split.compute(config, device, compute_buffers, logits) if config.generates else 0
        embedding = 0
        if context is not None:
            embedding = split.cache(context, device, sequences=MAX_EMBEDDING_INPUTS)
            embedding += split.compute(context, device, embedding_compute, embedding_outputs)
        fixed = 0 if device is None else GPU_FIXED_BYTES + options.overhead
        extra = adapters if split.used(device) else 0
        projector = dims.projector + dims.projector_compute if device == split.first else 0
        found.append(DeviceMemory(split.weights(device), cache, compute, embedding, extra, fixed, projector))
    return tuple(found)


class LayerSplit:
    """The layers of a model on their devices; None is the host."""

    def __init__(self, dims: ModelDimensions, gpus: int, options: GpuOptions) -> None:
        self._dims, self._gpus = dims, gpus
        self._layers = list(each_layer(dims.layer_groups))
        *self._places, self._output = devices_of_layers(len(self._layers), gpus, options)
        moved = self._layers[: options.expert_layers_on_cpu]
        self._experts = [layer.experts for layer in moved] + [0] * (len(self._layers) - len(moved))
        """Bytes of the experts that stay in host memory, of every layer."""

    @property
    def first(self) -> int | None:
        """The first GPU, which has the projector; None if no layer is on a GPU."""
        return None if all(place is None for place in (*self._places, self._output)) else 0

    def used(self, device: int | None) -> bool:
        """Whether any layer or the output is on the device."""
        return device in self._places or self._output == device

    def weights(self, device: int | None) -> int:
        size = self._dims.output_weights if self._output == device else 0
        for layer, place, experts in zip(self._layers, self._places, self._experts, strict=True):
            if place == device:
                size += layer.weights - experts
            if device is None:
                size += experts
        return size + (self._dims.input_weights if device is None else 0)

    def layer_sizes(self, config: LoadConfig) -> list[int]:
        """Return the bytes of weights and cache of each layer and, last, of the output, if they are on a GPU."""
        sizes = [layer.weights - experts for layer, experts in zip(self._layers, self._experts, strict=True)]
        context = embedding_load(config)
        for index, layer in enumerate(self._layers):
            sizes[index] += self._cache([layer], config, config.parallel) if config.generates else 0
            sizes[index] += self._cache([layer], context, MAX_EMBEDDING_INPUTS) if context is not None else 0
        return [*sizes, self._dims.output_weights]

    def cache(self, config: LoadConfig, device: int | None, *, sequences: int) -> int:
        """Return the KV cache and the recurrent state."""
        here = [layer for layer, place in zip(self._layers, self._places, strict=True) if place == device]
        return self._cache(here, config, sequences)

    def _cache(self, layers: Sequence[LayerGroup], config: LoadConfig, sequences: int) -> int:
        row = sum(self._row(layer, config) for layer in layers)
        return config.parallel * cells(config) * row + sequences * 4 * sum(layer.state for layer in layers)

    def _row(self, layer: LayerGroup, config: LoadConfig) -> int:
        values = padded_width(self._dims, layer) if config.flash_attention is False else layer.values
        return row_bytes(layer.keys, values, config.kv_cache_type)

    def compute(self, config: LoadConfig, device: int | None, whole: _Buffers, outputs: _Buffers) -> int:
        """Return the compute buffers; those of the ``whole`` graph and its ``outputs`` are at most as large."""
        state, mask = hidden(self._dims, config), masks(self._dims, config)
        copies = INPUT_COPIES if self._gpus > 1 and not self._hosted else 1
        if device is None and not self._hosted:
            return copies * (state + mask) + state + outputs(self._dims, config) + FIXED_COMPUTE_BYTES
        if device is not None and not self.used(device):
            return 0
        size = whole(self._dims, config)
        if copies > 1:
            in_use = 0 if self._dims.state else 1  # every layer of the graph uses the masks, except recurrent ones
            size += (copies - in_use) * mask + copies * state * (2 if device else 1)
            size += copies * convolved(self._dims, config) * (3 if device else 1) + (copies - 1) * FIXED_COMPUTE_BYTES
        if self._hosted and device == 0:
            cache = self._largest_row(config) * config.parallel * cells(config)
            size += max(self._dims.largest_tensor, cache) + 2 * state + mask
            size += state * self._dims.experts_used if self._gpus > 1 else 0  # results of the experts of other GPUs
        return size

    @property
    def _hosted(self) -> bool:
        """Whether other weights than the input's are in host memory."""
        return None in (*self._places, self._output) or any(self._experts)

    def _largest_row(self, config: LoadConfig) -> int:
        """Return the bytes that a token adds to the cache of a layer in host memory, of the largest one."""
        places = zip(self._layers, self._places, strict=True)
        return max((self._row(layer, config) for layer, place in places if place is None), default=0)


_Buffers = Callable[[ModelDimensions, LoadConfig], int]
