"""Model metadata: what /api/tags, /api/show and /api/ps need while the model is not loaded.

Inspectors, runners and the status of a Model deliver it. Tenants can write to all three, so ``from_json`` bounds
every number and every length, and of ``info`` it keeps scalars only, so the depth is bounded too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictInt,
    StrictStr,
)
from pydantic.alias_generators import to_camel

from corral_core.base.json_codec import JsonCodec, OptionalStr
from corral_core.base.json_fields import get_object

_MAX_DIMENSION: Final = 2**53
_MAX_BUFFERS: Final = 16
_MAX_TYPE: Final = 16
MAX_LAYERS: Final = 512
"""Layers of a model: ``LLAMA_MAX_LAYERS`` in llama.cpp's ``src/llama-hparams.h``."""
MAX_LAYER_GROUPS: Final = 128
"""Groups of successive layers; the largest known models have 126 layers."""


@dataclass(frozen=True, slots=True)
class ComputeBuffer:
    """Compute buffers in ``bytes`` that llama.cpp plans for a load config, with batches of 512 tokens."""

    parallel: int
    kv_cache_type: str
    context_length: int
    bytes: int

    def to_json(self) -> dict[str, object]:
        return {to_camel(name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: object) -> ComputeBuffer:
        """Parse the form in ``status.model``. Raises ValueError."""
        if not isinstance(data, Mapping):
            raise ValueError("a compute buffer of the model dimensions is not an object")
        kind = data.get("kvCacheType")
        if not isinstance(kind, str) or len(kind) > _MAX_TYPE:
            raise ValueError("a compute buffer lacks the type of its KV cache")
        parallel, context, size = (_dimension(data, name) for name in ("parallel", "contextLength", "bytes"))
        return cls(parallel, kind, context, size)


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """``count`` successive layers of the same size.

    Each has ``weights`` in bytes, as on a GPU; ``experts`` of them are experts. One token adds ``keys`` and ``values``
    to the KV cache of each layer, without flash attention the values of the widest layer; a sequence has ``state``
    elements of recurrent state in each.
    """

    count: int
    weights: int
    experts: int = 0
    keys: int = 0
    values: int = 0
    state: int = 0

    def to_json(self) -> dict[str, object]:
        """Convert to the form in ``status.model``, without zeros."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, data: object) -> LayerGroup:
        """Parse the form in ``status.model``. Raises ValueError."""
        if not isinstance(data, Mapping):
            raise ValueError("a group of layers of the model dimensions is not an object")
        return cls(**{each.name: _dimension({each.name: 0, **data}, each.name) for each in fields(cls)})


@dataclass(frozen=True, slots=True)
class ModelDimensions:
    """``weights`` is the size of all tensors in bytes; the other numbers are counts.

    ``keys`` and ``values`` are the values that one token adds to the KV cache over all layers; without flash attention
    it adds ``padded_values``. ``state`` are the values of a recurrent model per sequence, ``layer_state`` those of one
    layer, and ``recurrent`` is the width of its convolution. ``feed_forward`` is the width of the widest layer.
    ``experts_used`` is the number of experts per token, ``expert_feed_forward`` the width of one. ``heads`` is the
    maximum over the layers, ``query`` and ``key_value`` are the attention widths of that layer. ``masks`` is the number
    of attention masks (2 with a sliding window). ``compute_buffers`` are what llama.cpp planned, if it was asked.

    ``input_weights`` are the bytes of the tensors that llama.cpp keeps in host memory (token embeddings),
    ``output_weights`` those of the output layer, which may be a copy of the token embeddings, and ``largest_tensor``
    those of the largest tensor of a layer. ``layer_groups`` are all layers, in order. ``projector`` and
    ``projector_compute`` are the bytes of the tensors and of the compute buffer of the projector, if there is one.
    """

    weights: int
    layers: int = 0
    embedding: int = 0
    vocabulary: int = 0
    keys: int = 0
    values: int = 0
    padded_values: int = 0
    state: int = 0
    layer_state: int = 0
    recurrent: int = 0
    heads: int = 0
    query: int = 0
    key_value: int = 0
    feed_forward: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    masks: int = 1
    input_weights: int = 0
    output_weights: int = 0
    largest_tensor: int = 0
    projector: int = 0
    projector_compute: int = 0
    layer_groups: tuple[LayerGroup, ...] = ()
    compute_buffers: tuple[ComputeBuffer, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Convert to the form in ``status.model``, without compute buffers if llama.cpp was not asked, and without
        projector if there is none.
        """
        numbers: dict[str, object] = {to_camel(name): getattr(self, name) for name in _NUMBERS}
        numbers = {name: value for name, value in numbers.items() if value or name not in _NO_PROJECTOR}
        buffers = [one.to_json() for one in self.compute_buffers]
        groups: dict[str, object] = {_GROUPS: [one.to_json() for one in self.layer_groups]}
        return numbers | groups | ({_BUFFERS: buffers} if buffers else {})

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> ModelDimensions:
        """Parse the form in ``status.model``. Raises ValueError if a number is missing or not an integer."""
        numbers = {name: _dimension({**_NO_PROJECTOR, **data}, to_camel(name)) for name in _NUMBERS}
        groups = tuple(LayerGroup.from_json(one) for one in _list(data, _GROUPS, MAX_LAYER_GROUPS))
        if sum(group.count for group in groups) > MAX_LAYERS:
            raise ValueError(f"the model dimensions have more than {MAX_LAYERS} layers")
        return cls(
            **numbers,
            layer_groups=groups,
            compute_buffers=tuple(ComputeBuffer.from_json(one) for one in _list(data, _BUFFERS, _MAX_BUFFERS)),
        )


def _list(data: Mapping[str, object], name: str, maximum: int) -> list[object]:
    items = data.get(name, [])
    if not isinstance(items, list) or len(items) > maximum:
        raise ValueError(f"the model dimensions have more than {maximum} {name} or no list of them")
    return items


def _dimension(data: Mapping[str, object], name: str) -> int:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_DIMENSION:
        raise ValueError(f"the model dimensions lack the number {name!r}")
    return value


_BUFFERS: Final = "computeBuffers"
_GROUPS: Final = "layerGroups"
_NO_PROJECTOR: Final[Mapping[str, int]] = {"projector": 0, "projectorCompute": 0}
_NUMBERS: Final = tuple(each.name for each in fields(ModelDimensions) if to_camel(each.name) not in (_BUFFERS, _GROUPS))

MAX_METADATA_BYTES: Final = 1 << 20
"""Size of a message with metadata as JSON; metadata with the longest template needs a quarter of it."""
MAX_INFO_KEYS: Final = 512
MAX_INFO_KEY: Final = 256
MAX_INFO_TEXT: Final = 1024
"""Keys of ``info``, characters of a key and of a text in it."""
MAX_PACKED: Final = 32 * 1024
"""Characters of ``source_defaults``."""
_MAX_NAME: Final = 256
_MAX_NAMES: Final = 64

Name = Annotated[StrictStr, AfterValidator(lambda text: text[:_MAX_NAME])]
Names = Annotated[tuple[Name, ...], Field(max_length=_MAX_NAMES), PlainSerializer(list)]
Packed = Annotated[OptionalStr, AfterValidator(lambda text: text if len(text) <= MAX_PACKED else "")]
Size = Annotated[StrictInt, Field(ge=0, le=2**53)]
Length = Annotated[StrictInt, Field(ge=0, le=2**31)]


def _scalars(value: object) -> object:
    """Keep the entries that are scalars within bounds; anything but an object reads as empty."""
    items = value.items() if isinstance(value, Mapping) else ()
    kept = {key: item for key, item in items if isinstance(key, str) and len(key) <= MAX_INFO_KEY and _is_scalar(item)}
    return dict(list(kept.items())[: MAX_INFO_KEYS + 1])  # the header's keys and general.parameter_count


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_INFO_TEXT
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _dimensions_or_none(value: object) -> ModelDimensions | None:
    return ModelDimensions.from_json(value) if isinstance(value, Mapping) else None


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """Metadata of a model's files. The inspection pod or local mode reads it; the operator keeps it in
    ``status.model``.

    ``size`` is the weights file in bytes, ``parameter_size`` Ollama's text (``135M``, ``1.2B``), ``quantization_level``
    llama.cpp's name of the file type (``Q4_1``). ``info`` holds the header's scalar keys as in /api/show's
    ``model_info``: arrays are null, the chat template is left out. ``projector_info`` is the same of the projector. The
    memory estimate follows from ``dimensions`` and ``adapters_size``, the total size of the LoRA adapters in bytes.
    ``source``, ``sha256`` and ``adapters_digest``, which covers ``spec.projector`` too, identify the files that the
    metadata was read from. ``source_defaults`` is what the source brings besides weights (``packed_defaults``), and
    ``left_out`` names what does not fit into the message or the status, as in /api/show.
    """

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)

    size: Size
    family: Name
    families: Names
    parameter_size: Name
    parameter_count: Size
    quantization_level: Annotated[Name, Field(alias="quantization")]
    context_length: Length
    embedding_length: Length
    capabilities: Names
    template: Annotated[StrictStr, Field(max_length=MAX_METADATA_BYTES)]
    info: Annotated[Mapping[str, object], BeforeValidator(_scalars)] = field(default_factory=dict)
    projector_info: Annotated[Mapping[str, object], BeforeValidator(_scalars)] = field(default_factory=dict)
    dimensions: Annotated[
        ModelDimensions | None,
        Field(alias="shape"),
        PlainValidator(_dimensions_or_none),
        PlainSerializer(lambda dimensions: dimensions.to_json() if dimensions else None),
    ] = None
    source: OptionalStr = ""
    sha256: OptionalStr = ""
    adapters_digest: Annotated[OptionalStr, Field(alias="adapters")] = ""
    adapters_size: Size = 0
    source_defaults: Packed = ""
    left_out: Names = ()

    def to_json(self) -> dict[str, object]:
        """Convert to the form in ``status.model``, without empty optional fields."""
        encoded = _METADATA.encode(self)
        return {key: value for key, value in encoded.items() if value or key not in _OPTIONAL}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> ModelMetadata:
        """Parse the form in ``status.model``. Raises ValueError if a field is missing, invalid or out of bounds.

        Metadata of an older release may lack the dimensions.
        """
        return _METADATA.decode(data)


_METADATA = JsonCodec(ModelMetadata, "model metadata")
_OPTIONAL = frozenset(
    {"shape", "source", "sha256", "adapters", "adaptersSize", "sourceDefaults", "leftOut", "projectorInfo"}
)


def metadata_in_status(status: Mapping[str, object]) -> ModelMetadata | None:
    """Return the metadata in a Model's status, None if it has none that can be parsed."""
    try:
        return ModelMetadata.from_json(get_object(status, "model"))
    except ValueError:
        return None
