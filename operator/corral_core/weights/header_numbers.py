"""Numbers of a model's architecture in its GGUF header, which is untrusted.

A number that is missing or out of range reads as zero, and every number is bounded.
"""

from __future__ import annotations

from corral_core.contracts.model_metadata import MAX_LAYERS
from corral_core.weights.gguf import GGUFArray, GGUFHeader

_MAX_COUNT = 2**24
"""Maximum of every number; the largest vocabularies have 2**18 tokens."""


class HeaderNumbers:
    """Numbers by key without the prefix of the architecture: ``block_count``, ``attention.head_count``."""

    def __init__(self, header: GGUFHeader) -> None:
        self.architecture = header.get_str("general.architecture")
        self._values = header.values
        self.layers = min(self.number("block_count"), MAX_LAYERS)
        """Layers of the model, those for the prediction of further tokens included."""

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._values

    def number(self, key: str, default: int = 0) -> int:
        """Return the number; ``default`` only if the key is missing."""
        return _count_or_zero(self._values.get(f"{self.architecture}.{key}", default))

    def per_layer(self, key: str) -> list[int]:
        """Return a number for every layer, from one number for all or an array. False is 0 and True is 1."""
        value = self._values.get(f"{self.architecture}.{key}")
        if not isinstance(value, GGUFArray):
            return [_count_or_zero(value)] * self.layers
        items = [_count_or_zero(int(item) if isinstance(item, bool) else item) for item in value.items or ()]
        return (items + [0] * self.layers)[: self.layers]


def _count_or_zero(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT else 0
