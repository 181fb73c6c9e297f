"""KV cache and recurrent state of a model's layers, from its GGUF header.

- Which layers have which memory follows ``llama_model::create_memory`` (``src/llama-model.cpp``) and the architectures
  (``src/models/``) of llama.cpp, the widths ``src/llama-hparams.cpp``. An architecture that is not listed here has keys
  and values in every layer with heads and, if it has state at all, a state in every other one.
- The runner keeps llama.cpp's default ``swa_full``, so layers with a sliding window have as many cells as the others:
  without, a prefix could not be reused and a sequence not be shortened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from corral_core.weights.header_numbers import HeaderNumbers

_NO_CACHE = frozenset(
    {"bert", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe"}
    | {"modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "wavtokenizer-dec"}
)
"""Every token attends to the whole batch, which is computed at once."""
_RECURRENT = frozenset({"arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"})
_EVERY_LAYER_HAS_BOTH = "falcon-h1"
_ATTENTION_INTERVAL = {"minimax-01": 8, "qwen35": 4, "qwen35moe": 4, "qwen3next": 4, "qwen4exp": 4}
"""Attention in every n-th layer, by default; the others are recurrent."""
_WITHOUT_FEED_FORWARD = frozenset({"nemotron_h", "nemotron_h_moe"})
"""A layer is either attention, recurrent or feed-forward."""
_GEMMA3N_LAYERS = 20
"""Layers of Gemma 3n with keys and values of their own."""


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Numbers of elements in one layer, as in ``CacheLayout``."""

    keys: int = 0
    values: int = 0
    state: int = 0


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Numbers of elements, over all layers.

    One token adds ``keys`` and ``values`` to the KV cache, without flash attention ``padded_values``: llama.cpp then
    gives all layers the width of the widest. ``state`` is the recurrent state of one sequence, ``layer_state`` that of
    one layer. ``layers`` are all layers.
    """

    keys: int = 0
    values: int = 0
    padded_values: int = 0
    state: int = 0
    layer_state: int = 0
    layers: tuple[LayerCache, ...] = ()


def cache_layout(numbers: HeaderNumbers) -> CacheLayout:
    """Compute what the layers keep of the tokens before."""
    if numbers.architecture in _NO_CACHE:
        return CacheLayout(layers=(LayerCache(),) * numbers.layers)
    trunk = numbers.layers - min(numbers.number("nextn_predict_layers"), max(numbers.layers - 1, 0))
    recurrent = _recurrent_layers(numbers, trunk)
    cached = _cached_layers(numbers, trunk, recurrent)
    keys, values = _widths(numbers)
    loops = max(numbers.number("num_loops"), 1)
    indexer = numbers.number("attention.indexer.key_length")
    mla = numbers.number("attention.key_length_mla") and numbers.number("attention.value_length_mla")
    indexed = max(_head_lengths(numbers)[1], default=0) if indexer and not mla else 0
    layer_state = _state(numbers) if recurrent else 0
    layers = [LayerCache()] * numbers.layers
    for layer in cached:
        width = 0 if mla else loops * (values[layer] + indexed)
        layers[layer] = LayerCache(loops * (keys[layer] + indexer), width)
    for layer in recurrent:
        layers[layer] = replace(layers[layer], state=layer_state)
    return CacheLayout(
        keys=sum(layer.keys for layer in layers),
        values=sum(layer.values for layer in layers),
        padded_values=0 if mla else loops * (max(values, default=0) + indexed) * len(cached),
        state=len(recurrent) * layer_state,
        layer_state=layer_state,
        layers=tuple(layers),
    )


def _recurrent_layers(numbers: HeaderNumbers, trunk: int) -> list[int]:
    architecture, layers = numbers.architecture, range(trunk)
    if architecture in _RECURRENT or architecture == _EVERY_LAYER_HAS_BOTH:
        return list(layers)
    if architecture in _ATTENTION_INTERVAL:
        if numbers.has("attention.recurrent_layers"):
            flags = numbers.per_layer("attention.recurrent_layers")
            return [layer for layer in layers if flags[layer]]
        interval = numbers.number("full_attention_interval", _ATTENTION_INTERVAL[architecture]) or 1
        return [layer for layer in layers if (layer + 1) % interval]
    heads = kv_heads(numbers)
    wide = numbers.per_layer("feed_forward_length") if architecture in _WITHOUT_FEED_FORWARD else [0] * trunk
    return [layer for layer in layers if not heads[layer] and not wide[layer]]


def _cached_layers(numbers: HeaderNumbers, trunk: int, recurrent: Sequence[int]) -> list[int]:
    """Return the layers that have tensors in the KV cache, which may be of width zero."""
    if numbers.architecture in _RECURRENT:
        return []
    layers = range(trunk)
    if numbers.architecture == "gemma3n":
        layers = range(min(trunk, _GEMMA3N_LAYERS))
    elif numbers.number("attention.shared_kv_layers"):
        layers = range(max(0, min(trunk, numbers.layers - numbers.number("attention.shared_kv_layers"))))
    if numbers.architecture == _EVERY_LAYER_HAS_BOTH or not _state(numbers):
        return list(layers)
    without = set(recurrent)
    if numbers.architecture not in _ATTENTION_INTERVAL:
        layers = range(numbers.layers)
    return [layer for layer in layers if layer not in without]


def _widths(numbers: HeaderNumbers) -> tuple[list[int], list[int]]:
    """Return the width of keys and of values in every layer."""
    heads = kv_heads(numbers)
    keys, values = _head_lengths(numbers)
    return (
        [length * count for length, count in zip(keys, heads, strict=True)],
        [length * count for length, count in zip(values, heads, strict=True)],
    )


def _head_lengths(numbers: HeaderNumbers) -> tuple[list[int], list[int]]:
    """Return the length of a head for keys and values in every layer.

    Layers with a sliding window may have another one. The larger counts, unless the header lists these layers.
    """
    most = max(numbers.per_layer("attention.head_count"), default=0)
    default = numbers.number("embedding_length") // most if most else 0
    windowed = numbers.per_layer("attention.sliding_window_pattern")
    known = len(set(windowed)) > 1
    found = []
    for key in ("attention.key_length", "attention.value_length"):
        full = numbers.number(key) or default
        window = numbers.number(f"{key}_swa") or full
        longest = max(full, window)
        found.append([(window if flag else full) if known else longest for flag in windowed])
    return found[0], found[1]


def kv_heads(numbers: HeaderNumbers) -> list[int]:
    """Return the heads of keys and values in every layer, which default to those of queries."""
    key = "attention.head_count_kv"
    return numbers.per_layer(key if numbers.has(key) else "attention.head_count")


def _state(numbers: HeaderNumbers) -> int:
    """Return the elements of the state of one recurrent layer: ``llama_hparams::n_embd_r`` and ``n_embd_s``."""
    embedding = numbers.number("embedding_length")
    heads = next(iter(numbers.per_layer("attention.head_count")), 0)
    convolution = numbers.number("ssm.conv_kernel")
    if size := numbers.number("wkv.head_size"):
        return embedding * (numbers.number("token_shift_count", 2) + size)
    inner, size = numbers.number("ssm.inner_size"), numbers.number("ssm.state_size")
    if length := numbers.number("shortconv.l_cache"):
        return embedding * (length - 1) + size * inner
    if length := numbers.number("kda.head_dim"):
        return heads * length * (3 * (convolution - 1 if convolution else 3) + length)
    if numbers.architecture == "minimax-01":
        return heads * max(_head_lengths(numbers)[0], default=0) ** 2
    return max(convolution - 1, 0) * (inner + 2 * numbers.number("ssm.group_count") * size) + size * inner
