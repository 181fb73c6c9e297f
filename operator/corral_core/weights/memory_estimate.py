"""Memory estimate of a runner, from the header of its weights before anything is loaded.

- The estimate is the memory request of the runner pod: never below the use of llama.cpp and its process, and close
  above.
- Weights, KV cache and recurrent state are exact (``cache_layout``). ``bench/memory_prediction.py`` compares every part
  with llama.cpp for the headers of real models.
- Compute buffers are those that llama.cpp planned for the header (``ModelDimensions.compute_buffers``). For a load
  config that it was not asked for there is a formula, which is above them for all of these models, by up to 40 %.
- With GPUs, ``devices`` is what each of them needs, and only what stays in host memory is requested: pages of a mapped
  weights file are reclaimable.
- Weights count once. Where llama.cpp repacks tensors for the CPU kernels, the file's pages remain as reclaimable page
  cache.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from corral_core.contracts.model_metadata import ModelDimensions
from corral_core.weights.load_config import MAX_EMBEDDING_INPUTS, LoadConfig
from corral_core.weights.memory.context_memory import (
    blocks,
    cells,
    compute_buffers,
    embedding_compute,
    embedding_load,
    kv_cache,
)
from corral_core.weights.memory.device_memory import DeviceMemory, device_memory
from corral_core.weights.memory.layer_split import GpuOptions

MIB = 1 << 20

PROCESS_BYTES = 96 * MIB
"""Python, llama.cpp's libraries and a few requests.

Measured: after eight prompts of 1,500 words with SmolLM2 (a vocabulary of 49,152 tokens) the process holds 83 MiB
beyond what llama.cpp reports; the estimate with the vocabulary is 120 MiB.
"""
REQUEST_BYTES = 128 * MIB
"""Bodies, prompts, output and the worker process of requests; the runner refuses more than its limit leaves."""
BYTES_PER_VOCABULARY_TOKEN = 512
"""Text, rank and sampling candidates of each token of the vocabulary."""
BYTES_PER_INPUT = 2
"""Of a value that a multiplication converts to the format of the weights: 16 bits for those in 16 bits, less else."""
BYTES_PER_CELL = 160
"""Position, sequences and shift of a cell of the KV cache, and its entries in two trees (``llama-kv-cells.h``)."""
GPU_HOST_BYTES = 1 << 30
"""Host memory of the GPU driver and libraries; not measured."""
IMAGE_REQUEST_BYTES = 384 * MIB
"""Further memory for requests of a model with a projector: the pixels of a photo of 12 megapixels in the runner (144
MB), and the process that decodes it, as measured with ``isolation/worker_process.py``."""
ALL_LAYERS = GpuOptions()
_PARTS = tuple(each.name for each in fields(DeviceMemory))


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Host memory in bytes, each part in whole MiB. ``overhead`` is the process itself, ``requests`` what they hold.

    ``embedding`` is the KV cache and compute buffers of embedding requests, which have their own context. ``adapters``
    are the LoRA adapters, which are all in memory. ``projector`` has its weights and its compute buffer. ``gpus`` is
    the memory of each GPU, which is not in the host's.
    """

    weights: int
    kv_cache: int
    compute: int
    embedding: int
    overhead: int
    load_config: LoadConfig
    adapters: int = 0
    requests: int = REQUEST_BYTES
    gpus: tuple[DeviceMemory, ...] = ()
    projector: int = 0

    @property
    def devices(self) -> tuple[int, ...]:
        """Bytes that each GPU needs; empty on the CPU."""
        return tuple(gpu.total for gpu in self.gpus)

    @property
    def vram(self) -> int:
        """Memory of llama.cpp itself on all GPUs."""
        return sum(gpu.engine for gpu in self.gpus)

    @property
    def engine(self) -> int:
        """Memory of llama.cpp itself on the host and all GPUs, which the runner reports as ``size_bytes``."""
        return self._host + self.vram

    @property
    def total(self) -> int:
        """Host memory."""
        return self._host + self.overhead + self.requests

    @property
    def _host(self) -> int:
        return self.weights + self.adapters + self.projector + self.kv_cache + self.compute + self.embedding

    def __str__(self) -> str:
        parts = [f"weights {_mib(self.weights)}"]
        if self.adapters:
            parts.append(f"adapters {_mib(self.adapters)}")
        if self.projector:
            parts.append(f"projector {_mib(self.projector)}")
        if self.load_config.generates:
            cache = f"{self.load_config.parallel} x {self.load_config.context_length} tokens"
            parts += [f"KV cache {_mib(self.kv_cache)} for {cache}", f"compute buffers {_mib(self.compute)}"]
        if self.load_config.embedding is not None:
            parts.append(f"embeddings of {self.load_config.context_length} tokens {_mib(self.embedding)}")
        parts += [f"the process {_mib(self.overhead)}", f"requests {_mib(self.requests)}"]
        told = f"{_mib(self.total)} MiB: {', '.join(parts)}"
        if not self.gpus:
            return told
        return f"{' + '.join(f'{_mib(size)} MiB' for size in self.devices)} of GPU memory, and of host memory {told}"


def estimate_memory(
    dims: ModelDimensions,
    config: LoadConfig,
    *,
    gpus: int = 0,
    adapters: int = 0,
    options: GpuOptions = ALL_LAYERS,
) -> MemoryEstimate:
    """Estimate the memory of a runner on the host and on each of ``gpus`` GPUs, for weights of these dimensions.

    ``adapters`` is the total size of its LoRA adapters in bytes; each is read into its own memory. ``options`` is the
    distribution over the GPUs, by default all layers in equal shares.
    """
    overhead = process_bytes(dims, config, gpus=bool(gpus))
    if gpus:
        host, *found = device_memory(dims, config, gpus=gpus, adapters=adapters, options=options)
    else:
        host, found = _cpu(dims, config, adapters), []
    host, *devices = (DeviceMemory(*(_whole(getattr(one, part)) for part in _PARTS)) for one in (host, *found))
    return MemoryEstimate(
        host.weights,
        host.kv_cache,
        host.compute,
        host.embedding,
        overhead,
        config,
        host.adapters,
        REQUEST_BYTES + (IMAGE_REQUEST_BYTES if dims.projector else 0),
        tuple(devices),
        host.projector,
    )


def _cpu(dims: ModelDimensions, config: LoadConfig, adapters: int) -> DeviceMemory:
    kv, compute = (kv_cache(dims, config), compute_buffers(dims, config)) if config.generates else (0, 0)
    embedding, context = 0, embedding_load(config)
    if context is not None:
        embedding = kv_cache(dims, context, sequences=MAX_EMBEDDING_INPUTS) + embedding_compute(dims, context)
    return DeviceMemory(
        dims.weights, kv, compute, embedding, adapters, projector=dims.projector + dims.projector_compute
    )


def process_bytes(dims: ModelDimensions | None, config: LoadConfig, *, gpus: bool) -> int:
    """Return the memory of the process itself, and of what llama.cpp does not report, in whole MiB.

    The latter is a record of each KV cell, two with a sliding window, and the inputs of a multiplication in the format
    of the weights (``ggml_graph_plan``).
    """
    size = PROCESS_BYTES + (GPU_HOST_BYTES if gpus else 0)
    if dims is not None:
        size += BYTES_PER_VOCABULARY_TOKEN * dims.vocabulary
        batch = max(config.batch_size, config.embedding.batch_size if config.embedding is not None else 0)
        size += BYTES_PER_INPUT * batch * max(_feed_forward(dims), dims.query, dims.recurrent)
        size += BYTES_PER_CELL * cells(config) * config.parallel * dims.masks if dims.keys else 0
    return _whole(size)


def _feed_forward(dims: ModelDimensions) -> int:
    """Return the width of a token's input to the last multiplication of a feed-forward layer, in all its experts."""
    return max(dims.feed_forward, dims.experts_used * (dims.expert_feed_forward or dims.feed_forward))


def _whole(size: int) -> int:
    """Round up to whole MiB."""
    return blocks(size, MIB) * MIB


def _mib(size: int) -> int:
    return size // MIB
