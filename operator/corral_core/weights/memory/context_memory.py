"""Memory of llama.cpp contexts, in bytes: KV cache, recurrent state, compute buffers and outputs.

- KV cache and recurrent state are exact (``cache_layout``).
- Compute buffers are those that llama.cpp planned for the header (``ModelDimensions.compute_buffers``). For a load
  config that it was not asked for there is a formula.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_core.contracts.model_metadata import LayerGroup, ModelDimensions
from corral_core.weights.ggml_types import TENSOR_TYPES
from corral_core.weights.load_config import DEFAULT_BATCH_SIZE, MAX_EMBEDDING_INPUTS, LoadConfig

FIXED_COMPUTE_BYTES = 2 << 20
"""Positions and indices in the compute buffers; constant."""
KV_CELL_MULTIPLE = 256
"""llama.cpp rounds the KV cells of a sequence up to a multiple of this number."""
_TYPES = {kind.name.lower(): kind for kind in TENSOR_TYPES.values()}


def row_bytes(keys: int, values: int, kv_cache_type: str) -> int:
    """Return the bytes of so many elements of keys and values in the KV cache."""
    kind = _TYPES[kv_cache_type]
    return (blocks(keys, kind.block_size) + blocks(values, kind.block_size)) * kind.type_size


def padded_width(dims: ModelDimensions, layer: LayerGroup) -> int:
    """Return the elements of values that a token adds to one layer without flash attention: as in the widest layer."""
    if not layer.keys and not layer.values:
        return 0
    cached = sum(each.count for each in dims.layer_groups if each.keys or each.values)
    return blocks(dims.padded_values, cached)


def kv_cache(dims: ModelDimensions, config: LoadConfig, *, sequences: int = 0) -> int:
    """Return the KV cache and the recurrent state, which every one of ``sequences`` has, by default the parallel ones.

    llama.cpp logs both, and they are exact.
    """
    values = dims.padded_values if config.flash_attention is False else dims.values
    row = row_bytes(dims.keys, values, config.kv_cache_type)
    return config.parallel * cells(config) * row + (sequences or config.parallel) * 4 * dims.state


def embedding_load(config: LoadConfig) -> LoadConfig | None:
    """Return the load config of the context for embedding requests: one input at a time; None without."""
    if config.embedding is None:
        return None
    return LoadConfig(config.embedding.cells, 1, config.embedding.batch_size)


def embedding_compute(dims: ModelDimensions, config: LoadConfig) -> int:
    """Return the compute buffers and the output buffer of the context for embeddings."""
    return formula(dims, config) + embedding_outputs(dims, config)


def embedding_outputs(dims: ModelDimensions, config: LoadConfig) -> int:
    """Return an output and logits for every token of a batch."""
    return 4 * (config.batch_size + MAX_EMBEDDING_INPUTS) * (dims.vocabulary + dims.embedding)


def compute_buffers(dims: ModelDimensions, config: LoadConfig) -> int:
    """Return the compute buffers and the output buffer: as planned by llama.cpp, else by the formula."""
    highest = formula(dims, config)
    planned = planned_compute(dims, config)
    return highest if planned is None else min(highest, planned + logits(dims, config))


def planned_compute(dims: ModelDimensions, config: LoadConfig) -> int | None:
    """Return the compute buffers by those that llama.cpp planned; None if it was not asked for such a config.

    They are the maximum of what is in use at any step of a computation, and each step is a linear function of the
    context and of the batch. So a straight line between two contexts, or to an empty batch, is not below them.
    """
    if config.flash_attention is False or config.batch_size > DEFAULT_BATCH_SIZE:
        return None
    kind = "q8_0" if _TYPES[config.kv_cache_type].block_size > 1 else config.kv_cache_type
    buffers = [one for one in dims.compute_buffers if one.kv_cache_type == kind and one.parallel >= config.parallel]
    parallel = min((one.parallel for one in buffers), default=0)
    known = sorted((one.context_length, one.bytes) for one in buffers if one.parallel == parallel)
    size = _interpolated(known, cells(config))
    if size is None:
        return None
    outputs = min(config.batch_size, config.parallel * config.outputs_per_sequence)
    output = 4 * (dims.vocabulary + 4 * dims.embedding)
    empty = outputs * output + 8 * dims.layer_state * parallel + FIXED_COMPUTE_BYTES
    size += max(0, outputs - parallel) * output
    return min(size, blocks(size * config.batch_size, DEFAULT_BATCH_SIZE) + empty)


def _interpolated(known: Sequence[tuple[int, int]], length: int) -> int | None:
    """Interpolate the bytes for a context between those of the contexts in ``known``; None above the longest."""
    above = next((one for one in known if one[0] >= length), None)
    if above is None:
        return None
    below = next((one for one in reversed(known) if one[0] <= length), above)
    distance = above[0] - below[0]
    return below[1] + (blocks(max(0, above[1] - below[1]) * (length - below[0]), distance) if distance else 0)


def formula(dims: ModelDimensions, config: LoadConfig) -> int:
    """Estimate the compute buffers: activations, attention scores and masks of a batch, and logits; and the output."""
    length, batch = cells(config), config.batch_size
    activations = 4 * _activations(dims)
    if config.flash_attention is False:
        scores = 4 * length * (dims.heads + dims.masks) + 20 * (dims.embedding + dims.query + dims.key_value)
        token = max(scores, activations + 4 * length * dims.masks)
    else:
        token = activations + 2 * length * dims.masks
    states = 8 * dims.layer_state * config.parallel
    return batch * token + states + 2 * logits(dims, config) + FIXED_COMPUTE_BYTES


def logits(dims: ModelDimensions, config: LoadConfig) -> int:
    """Return the logits of one batch."""
    return 4 * dims.vocabulary * min(config.batch_size, config.parallel * config.outputs_per_sequence)


def _activations(dims: ModelDimensions) -> int:
    """Count the values that are live at once for one token of a batch, in the widest layer."""
    experts = dims.experts_used * (3 * (dims.expert_feed_forward or dims.feed_forward) + dims.embedding)
    dense = 3 * dims.feed_forward if not dims.experts_used or dims.expert_feed_forward else 0
    return max(experts, dense, 3 * dims.query, 4 * dims.recurrent) + 5 * dims.embedding


def masks(dims: ModelDimensions, config: LoadConfig) -> int:
    """Return the bytes of a batch's attention masks."""
    return (4 if config.flash_attention is False else 2) * config.batch_size * cells(config) * dims.masks


def hidden(dims: ModelDimensions, config: LoadConfig) -> int:
    """Return the bytes of a batch's hidden state, or of its token embeddings."""
    return 4 * config.batch_size * dims.embedding


def convolved(dims: ModelDimensions, config: LoadConfig) -> int:
    """Return the bytes of a batch's input to the convolution of a layer that is only recurrent."""
    only_recurrent = any(group.state and not group.keys for group in dims.layer_groups)
    return 4 * config.batch_size * dims.recurrent if only_recurrent else 0


def cells(config: LoadConfig) -> int:
    """Return the KV cells of one sequence."""
    return blocks(config.context_length, KV_CELL_MULTIPLE) * KV_CELL_MULTIPLE


def blocks(values: int, block: int) -> int:
    return -(-values // block)
