"""What is known of a model's weights: enough for /api/tags, /api/show and /api/ps while the model is cold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corral_core.jsonfields import text
from corral_core.shape import Shape


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Read from the GGUF header, by the runner or in local mode; the operator keeps it in ``status.model``.

    ``size`` is the weights file in bytes; ``parameter_size`` is Ollama's text (``135M``, ``1.2B``);
    ``quantization_level`` llama.cpp's name of the file type (``Q4_1``); ``info`` the header's scalar keys
    (arrays are null, the chat template is left out), as /api/show's ``model_info`` has them. ``shape`` is what a
    runner's memory follows from, together with ``adapters_size``, the bytes of its LoRA adapters. ``source`` and
    ``sha256`` are those of the Model that they were read for, and ``adapters`` says which it had (``weights.py``).
    """

    size: int
    family: str
    families: tuple[str, ...]
    parameter_size: str
    parameter_count: int
    quantization_level: str
    context_length: int
    embedding_length: int
    capabilities: tuple[str, ...]
    template: str
    info: Mapping[str, object] = field(default_factory=dict)
    shape: Shape | None = None
    source: str = ""
    sha256: str = ""
    adapters: str = ""
    adapters_size: int = 0

    def to_json(self) -> dict[str, object]:
        """The form kept in ``status.model``."""
        return {
            "size": self.size,
            "family": self.family,
            "families": list(self.families),
            "parameterSize": self.parameter_size,
            "parameterCount": self.parameter_count,
            "quantization": self.quantization_level,
            "contextLength": self.context_length,
            "embeddingLength": self.embedding_length,
            "capabilities": list(self.capabilities),
            "template": self.template,
            "info": dict(self.info),
            **({"shape": self.shape.to_json()} if self.shape else {}),
            **({"source": self.source} if self.source else {}),
            **({"sha256": self.sha256} if self.sha256 else {}),
            **({"adapters": self.adapters, "adaptersSize": self.adapters_size} if self.adapters else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> ModelFacts:
        """Raises ValueError when a field is missing or has another type.

        The shape may be missing: who wrote the facts may be older than it, and what it told otherwise still holds.
        """
        info, shape = data.get("info"), data.get("shape")
        return cls(
            size=_integer(data, "size"),
            family=_text(data, "family"),
            families=_texts(data, "families"),
            parameter_size=_text(data, "parameterSize"),
            parameter_count=_integer(data, "parameterCount"),
            quantization_level=_text(data, "quantization"),
            context_length=_integer(data, "contextLength"),
            embedding_length=_integer(data, "embeddingLength"),
            capabilities=_texts(data, "capabilities"),
            template=_text(data, "template"),
            info=dict(info) if isinstance(info, Mapping) else {},
            shape=Shape.from_json(shape) if isinstance(shape, Mapping) else None,
            source=text(data, "source"),
            sha256=text(data, "sha256"),
            adapters=text(data, "adapters"),
            adapters_size=_integer(data, "adaptersSize") if "adapters" in data else 0,
        )


def _integer(data: Mapping[str, object], key: str) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"the model's facts lack the integer {key!r}")
    return value


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise ValueError(f"the model's facts lack the text {key!r}")
    return value


def _texts(data: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"the model's facts lack the list of texts {key!r}")
    return tuple(value)
