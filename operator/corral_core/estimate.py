"""How much memory a runner takes, from the header of its weights alone: before anything is loaded.

What a runner's pod asks for comes from here, so an estimate is never below what llama.cpp takes and its process with
it, and not far above. The formulas were fitted to what llama.cpp reports for models of many shapes (llama, qwen, gemma,
mixtures of experts); the tests hold them to the real engine.

Weights count once: where llama.cpp repacks tensors for the CPU's kernels it reads the file once more than it needs,
and that is page cache, which the kernel takes back when memory is short.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.ggml_types import TENSOR_TYPES
from corral_core.load import Load
from corral_core.shape import Shape

MIB = 1 << 20

PROCESS = 96 * MIB
"""Python, llama.cpp's libraries and what requests take. Measured: a process that has read eight prompts of 1,500 words
with SmolLM2 (49,152 tokens in its vocabulary) has 83 MiB beyond what llama.cpp reports; with ``FOR_TOKEN`` this is 120.
"""
FOR_TOKEN = 512
"""Bytes for each token of the vocabulary: its text, its rank, and the candidates of running samplers."""
SMALL_THINGS = 2 * MIB
"""Positions, indices and the like in the compute buffers, which grow with nothing."""
GPU_HOST = 1 << 30
"""What a GPU's driver and libraries take of the host's memory. Not measured here."""
CELLS = 256
"""llama.cpp makes the KV cache of a sequence a multiple of this many cells."""

EMBEDDED_TOGETHER = 64
"""Inputs that one batch of embeddings has room for; its tokens are a multiple of it."""

_TYPES = {kind.name.lower(): kind for kind in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes, each part in whole MiB. ``overhead`` is the process itself; ``load`` is what it was estimated for.

    ``embedding`` is the cache and the computing of embedding requests, which have a context of their own; ``adapters``
    are the LoRA adapters, all of which are in memory at once.
    """

    weights: int
    kv: int
    graph: int
    embedding: int
    overhead: int
    load: Load
    adapters: int = 0

    @property
    def engine(self) -> int:
        """What llama.cpp itself takes, as the runner tells in ``size_bytes``."""
        return self.weights + self.adapters + self.kv + self.graph + self.embedding

    @property
    def total(self) -> int:
        return self.engine + self.overhead

    def __str__(self) -> str:
        parts = [f"weights {_mib(self.weights)}"]
        if self.adapters:
            parts.append(f"adapters {_mib(self.adapters)}")
        if self.load.generates:
            cache = f"{self.load.parallel} x {self.load.context} tokens"
            parts += [f"KV cache {_mib(self.kv)} for {cache}", f"computing {_mib(self.graph)}"]
        if self.load.embedding:
            parts.append(f"embeddings of {self.load.context} tokens {_mib(self.embedding)}")
        return f"{_mib(self.total)} MiB: {', '.join(parts)}, the process {_mib(self.overhead)}"


def estimate(shape: Shape, load: Load, *, gpus: int = 0, adapters: int = 0) -> Estimate:
    """The memory of the host that a runner of such weights takes when it is started like that.

    ``adapters`` is the bytes of its LoRA adapters: each is read into memory of its own. With GPUs the weights and the
    cache count as well: they pass through the host's memory, and what does not fit the GPUs stays there.
    """
    overhead = PROCESS + FOR_TOKEN * shape.vocabulary + (GPU_HOST if gpus else 0)
    generating = (_kv(shape, load), _graph(shape, load)) if load.generates else (0, 0)
    parts = (shape.weights, *generating, _embedding(shape, load), overhead, adapters)
    weights, kv, graph, embedding, overhead, adapters = (_blocks(part, MIB) * MIB for part in parts)
    return Estimate(weights, kv, graph, embedding, overhead, load, adapters)


def _embedding(shape: Shape, load: Load) -> int:
    """A context for one input at a time; every token has an output, and llama.cpp computes its logits too."""
    if not load.embedding:
        return 0
    batch = _blocks(load.embedding, EMBEDDED_TOGETHER) * EMBEDDED_TOGETHER
    cells = load.context + batch if load.embedding < load.context else batch
    context = Load(cells, 1, batch)
    outputs = 4 * (batch + EMBEDDED_TOGETHER) * (shape.vocabulary + shape.embedding)
    return _kv(shape, context) + _graph(shape, context) + outputs


def _kv(shape: Shape, load: Load) -> int:
    kind = _TYPES[load.cache_type]
    row = _blocks(shape.keys, kind.block) * kind.size + _blocks(shape.values, kind.block) * kind.size
    return load.parallel * (_cells(load) * row + 4 * shape.state)


def _graph(shape: Shape, load: Load) -> int:
    """The compute buffers: the activations of a batch, what it attends with, and the logits."""
    cells, batch = _cells(load), load.batch
    activations = 4 * _activations(shape)
    if load.flash_attention is False:
        scores = 4 * cells * (shape.heads + shape.masks) + 20 * (shape.embedding + shape.query + shape.key_value)
        token = max(scores, activations + 4 * cells * shape.masks)
    else:
        token = activations + 2 * cells * shape.masks
    logits = 4 * shape.vocabulary * min(batch, load.parallel * load.outputs)
    return batch * token + 2 * logits + SMALL_THINGS


def _activations(shape: Shape) -> int:
    """Values that are held at the same time for one token of a batch, in the widest layer."""
    experts = shape.experts_used * (3 * (shape.expert_feed_forward or shape.feed_forward) + shape.embedding)
    dense = 3 * shape.feed_forward if not shape.experts_used or shape.expert_feed_forward else 0
    return max(experts, dense) + 5 * shape.embedding


def _cells(load: Load) -> int:
    """Of the KV cache, for one sequence."""
    return _blocks(load.context, CELLS) * CELLS


def _blocks(values: int, block: int) -> int:
    return -(-values // block)


def _mib(size: int) -> int:
    return size // MIB
