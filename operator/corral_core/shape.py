"""The sizes in a GGUF's header that decide how much memory a runner of it takes; see ``estimate``.

The header is untrusted: a number that makes no sense counts as zero, and every number is bounded, so that nothing that
is computed from them grows beyond what JSON and Kubernetes can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from corral_core.gguf import Array, Header

_MOST = 2**24
"""Of anything that the header counts; the largest vocabularies have 2**18 tokens."""
_MOST_LAYERS = 4096
_BOUND = 2**53 - 1
"""Of everything that is computed: what every reader of JSON can hold."""


@dataclass(frozen=True, slots=True)
class Shape:
    """``weights`` is the bytes of all tensors. All others are counts of values or of things.

    ``keys`` and ``values`` are what one token adds to the KV cache, over all layers; ``state`` what a recurrent model
    keeps for each sequence. ``feed_forward`` is the width of the widest layer's, ``expert_*`` those of a mixture of
    experts: how many are used for a token, and how wide one is. ``heads`` is that of the layer with most; ``query`` and
    ``key_value`` are the widths of what that layer attends with. ``masks`` is how many kinds of attention it has.
    """

    weights: int
    layers: int = 0
    embedding: int = 0
    vocabulary: int = 0
    keys: int = 0
    values: int = 0
    state: int = 0
    heads: int = 0
    query: int = 0
    key_value: int = 0
    feed_forward: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    masks: int = 1

    def to_json(self) -> dict[str, object]:
        return {_camel(name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Shape:
        """Raises ValueError when a number is missing or is none."""
        found: dict[str, int] = {}
        for field in fields(cls):
            value = data.get(_camel(field.name))
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
                raise ValueError(f"the model's shape lacks the number {_camel(field.name)!r}")
            found[field.name] = value
        return cls(**found)


def shape_of(header: Header) -> Shape:
    return _Reader(header).shape()


class _Reader:
    def __init__(self, header: Header) -> None:
        self._header = header
        self._architecture = header.text("general.architecture")
        self._layers = min(self._number("block_count"), _MOST_LAYERS)
        self._embedding = self._number("embedding_length")

    def shape(self) -> Shape:
        heads, kv_heads = self._heads()
        head = self._embedding // max(heads, default=1) if max(heads, default=0) else 0
        key, value = self._number("attention.key_length") or head, self._number("attention.value_length") or head
        sizes = {
            "weights": self._header.tensor_bytes,
            "layers": self._layers,
            "embedding": self._embedding,
            "vocabulary": self._vocabulary(),
            "keys": key * sum(kv_heads),
            "values": value * sum(kv_heads),
            "state": self._state(kv_heads),
            "heads": max(heads, default=0),
            "query": max(heads, default=0) * max(key, value),
            "key_value": max(kv_heads, default=0) * (key + value),
            "feed_forward": max(self._each("feed_forward_length"), default=0)
            + self._number("expert_shared_feed_forward_length"),
            "experts_used": self._number("expert_used_count"),
            "expert_feed_forward": self._number("expert_feed_forward_length"),
            "masks": 2 if self._number("attention.sliding_window") else 1,
        }
        return Shape(**{name: min(size, _BOUND) for name, size in sizes.items()})

    def _heads(self) -> tuple[list[int], list[int]]:
        """Of every layer, for queries and for keys and values; what has no head count of its own has the queries'."""
        heads = self._each("attention.head_count")
        return heads, self._each("attention.head_count_kv") if self._has("attention.head_count_kv") else heads

    def _state(self, kv_heads: list[int]) -> int:
        """Recurrent layers are those without heads; where none is, all may be."""
        inner, size = self._number("ssm.inner_size"), self._number("ssm.state_size")
        if not inner:
            return 0
        convolution = max(self._number("ssm.conv_kernel"), 1) - 1
        layer = convolution * (inner + 2 * self._number("ssm.group_count") * size) + size * inner
        return layer * (kv_heads.count(0) or self._layers)

    def _vocabulary(self) -> int:
        return self._header.count("tokenizer.ggml.tokens") or self._number("vocab_size")

    def _has(self, key: str) -> bool:
        return f"{self._architecture}.{key}" in self._header.values

    def _each(self, key: str) -> list[int]:
        """The number for every layer, which is one for all or an array."""
        value = self._header.values.get(f"{self._architecture}.{key}")
        if isinstance(value, Array):
            return [_sensible(item) for item in (value.items or ())[:_MOST_LAYERS]]
        return [_sensible(value)] * self._layers

    def _number(self, key: str) -> int:
        return _sensible(self._header.values.get(f"{self._architecture}.{key}"))


def _sensible(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST else 0


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
