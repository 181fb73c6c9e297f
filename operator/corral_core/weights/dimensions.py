"""Model dimensions: the sizes in a GGUF header that determine a runner's memory (``memory_estimate``).

The header is untrusted: a number that is out of range counts as zero, and every number is bounded, so that results stay
within the integers of JSON and Kubernetes.
"""

from __future__ import annotations

from corral_core.contracts.model_metadata import LayerGroup, ModelDimensions
from corral_core.weights.cache_layout import CacheLayout, cache_layout, kv_heads
from corral_core.weights.gguf import GGUFHeader
from corral_core.weights.header_numbers import HeaderNumbers
from corral_core.weights.memory.layer_groups import group_layers
from corral_core.weights.memory.weight_layout import WeightLayout, weight_layout

_MAX_RESULT = 2**53 - 1
"""Maximum of every result: the largest integer that all JSON parsers represent exactly."""


def dimensions_from_header(header: GGUFHeader) -> ModelDimensions:
    numbers = HeaderNumbers(header)
    cache, weights = cache_layout(numbers), weight_layout(header, numbers.layers)
    heads, groups = max(numbers.per_layer("attention.head_count"), default=0), max(kv_heads(numbers), default=0)
    head = numbers.number("embedding_length") // heads if heads else 0
    key, value = (numbers.number(f"attention.{kind}_length") or head for kind in ("key", "value"))
    sizes = {
        "weights": header.tensor_bytes,
        "layers": numbers.layers,
        "embedding": numbers.number("embedding_length"),
        "vocabulary": header.array_length("tokenizer.ggml.tokens") or numbers.number("vocab_size"),
        "keys": cache.keys,
        "values": cache.values,
        "padded_values": cache.padded_values,
        "state": cache.state,
        "layer_state": cache.layer_state,
        "recurrent": numbers.number("ssm.inner_size")
        + 2 * numbers.number("ssm.group_count") * numbers.number("ssm.state_size"),
        "heads": heads,
        "query": heads * max(key, value),
        "key_value": groups * (key + value),
        "feed_forward": max(numbers.per_layer("feed_forward_length"), default=0)
        + numbers.number("expert_shared_feed_forward_length"),
        "experts_used": max(numbers.per_layer("expert_used_count"), default=0),
        "expert_feed_forward": max(numbers.per_layer("expert_feed_forward_length"), default=0),
        "masks": 2 if numbers.number("attention.sliding_window") else 0 if cache.state and not cache.keys else 1,
        "input_weights": weights.input,
        "output_weights": weights.output,
        "largest_tensor": weights.largest,
    }
    return ModelDimensions(
        **{name: min(size, _MAX_RESULT) for name, size in sizes.items()},
        layer_groups=_groups(weights, cache),
        compute_buffers=(),
    )


def _groups(weights: WeightLayout, cache: CacheLayout) -> tuple[LayerGroup, ...]:
    layers = []
    for tensors, kept in zip(weights.layers, cache.layers, strict=True):
        sizes = (tensors.weights, tensors.experts, kept.keys, kept.values, kept.state)
        layers.append(LayerGroup(1, *(min(size, _MAX_RESULT) for size in sizes)))
    return group_layers(layers)
