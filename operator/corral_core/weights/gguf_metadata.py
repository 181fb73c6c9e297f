"""Model metadata from a GGUF header, with the fields of Ollama's ``/api/show`` (``server/routes.go``).

Metadata goes into JSON and the Model's status, so it is limited to what JSON and the API server accept: finite numbers,
integers of at most 64 bits, strings of bounded length.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from corral_core.base.errors import GGUFError
from corral_core.contracts.model_metadata import (
    MAX_INFO_KEY,
    MAX_INFO_KEYS,
    MAX_INFO_TEXT,
    ComputeBuffer,
    ModelMetadata,
)
from corral_core.sources.locate import weight_parts
from corral_core.weights.dimensions import dimensions_from_header
from corral_core.weights.ggml_types import FILE_TYPES
from corral_core.weights.gguf import GGUFArray, GGUFHeader, Scalar
from corral_core.weights.load_config import POOLING_RANK
from corral_core.weights.ollama.markers import ollama_only
from corral_core.weights.ollama.translations import translate
from corral_core.weights.projector import ARCHITECTURE, ProjectorMetadata
from corral_core.weights.split_header import OpenPart, read_weights_header, read_weights_header_from
from corral_core.weights.template_capabilities import template_capabilities

MAX_TEMPLATE = 256 << 10
"""Characters of a chat template; the longest known ones are below 20,000."""

ComputePlanner = Callable[[GGUFHeader], tuple[ComputeBuffer, ...]]
"""Returns the compute buffers that llama.cpp plans for a header; none if they cannot be found out. Raises nothing."""

_TEMPLATE = "tokenizer.chat_template"
_CLASSIFIER = "cls."
"""Beginning of the names of a classification head's tensors."""
_FLOAT = struct.Struct("<f")
_NOT_MODELS = frozenset({"adapter", "imatrix", "mmproj"})


def read_metadata(path: Path, plan: ComputePlanner | None = None) -> ModelMetadata:
    """Read the metadata of a weights file, or of all parts of a split one by its first.

    Raises GGUFError, whose text names the file, also for weights that only Ollama can load, SourceError if a part is
    missing, and OSError.
    """
    header, size = read_weights_header(path), sum(part.stat().st_size for part in weight_parts(path))
    if translate(header) is not None:
        raise GGUFError(f"{path} cannot be loaded: {ollama_only(header)}; or use ollama://, which translates the file")
    return _named_metadata(header, size, name=str(path), plan=plan)


def read_metadata_from(parts: Sequence[OpenPart], plan: ComputePlanner | None = None) -> ModelMetadata:
    """Read the metadata of weights to pull from open files: one, or all parts of a split file in order.

    A file of Ollama that a pull translates has the metadata of the result.

    Raises GGUFError, whose text names the file, also for weights that only Ollama can load, and what reading the files
    raises.
    """
    header = read_weights_header_from(parts)
    edits = translate(header)
    if edits is not None:
        return _named_metadata(edits.header, edits.size, name=parts[0].name, plan=plan)
    return _named_metadata(header, sum(part.size for part in parts), name=parts[0].name, plan=plan)


def _named_metadata(header: GGUFHeader, size: int, *, name: str, plan: ComputePlanner | None) -> ModelMetadata:
    reason = ollama_only(header)
    if reason is not None:
        raise GGUFError(f"{name} cannot be loaded: {reason}")
    try:
        metadata = metadata_from_header(header, size)
    except GGUFError as error:
        raise GGUFError(f"{name}: {error}") from error
    if plan is None or metadata.dimensions is None or "embedding" in metadata.capabilities:
        return metadata
    return replace(metadata, dimensions=replace(metadata.dimensions, compute_buffers=plan(header)))


def metadata_from_header(header: GGUFHeader, size: int) -> ModelMetadata:
    """Build the metadata of a model whose weights have ``size`` bytes.

    Raises GGUFError if the header does not describe a model or lacks a required key.
    """
    architecture = header.get_str("general.architecture")
    if not architecture:
        raise GGUFError("the GGUF lacks general.architecture, so it is not a model that can be loaded")
    if header.get_str("general.type") in _NOT_MODELS:
        raise GGUFError(f"the GGUF holds an {header.get_str('general.type')}, not a model")
    template = header.get_str(_TEMPLATE)
    if len(template) > MAX_TEMPLATE:
        raise GGUFError(f"the chat template has {len(template)} characters, at most {MAX_TEMPLATE} are allowed")
    return ModelMetadata(
        size=size,
        family=architecture,
        families=(architecture,),
        parameter_size=human_number(header.parameter_count),
        parameter_count=header.parameter_count,
        quantization_level=_quantization(header),
        context_length=_length(header, f"{architecture}.context_length"),
        embedding_length=_length(header, f"{architecture}.embedding_length"),
        capabilities=_capabilities(header, architecture, template),
        template=template,
        info=header_info(header),
        dimensions=dimensions_from_header(header),
    )


def human_number(number: int) -> str:
    """Format a parameter count like Ollama's ``format.HumanNumber``: ``1.2B``, ``134.52M``, ``8B``."""
    for size, unit, places in ((10**9, "B", 1), (10**6, "M", 2)):
        if number >= size:
            return f"{number // size}{unit}" if number % size == 0 else f"{number / size:.{places}f}{unit}"
    return f"{number / 1000:.0f}K" if number >= 1000 else str(number)


def _length(header: GGUFHeader, key: str) -> int:
    """Read a length in tokens or dimensions; 0 if it is missing or out of range."""
    length = header.get_int(key)
    return length if 0 <= length < 2**31 else 0


def _quantization(header: GGUFHeader) -> str:
    """Name ``general.file_type``; without it, the type of most parameters."""
    named = FILE_TYPES.get(header.get_int("general.file_type", -1))
    if named is not None:
        return named
    by_type: Counter[str] = Counter()
    for tensor in header.tensors:
        by_type[tensor.type] += tensor.elements
    return by_type.most_common(1)[0][0] if by_type else "unknown"


def _capabilities(header: GGUFHeader, architecture: str, template: str) -> tuple[str, ...]:
    pooling = header.values.get(f"{architecture}.pooling_type")
    found = ["completion" if pooling is None else "embedding"]
    if pooling == POOLING_RANK and any(tensor.name.startswith(_CLASSIFIER) for tensor in header.tensors):
        found.append("rerank")
    if f"{architecture}.vision.block_count" in header.values:
        found.append("vision")
    if f"{architecture}.audio.block_count" in header.values:
        found.append("audio")
    return (*found, *template_capabilities(template))


def with_projector(metadata: ModelMetadata, projector: ProjectorMetadata) -> ModelMetadata:
    """Return the metadata of a model with a projector, as ``GetModelInfo`` in Ollama's ``server/routes.go``."""
    dimensions = metadata.dimensions
    if dimensions is not None:
        dimensions = replace(dimensions, projector=projector.weights, projector_compute=projector.compute)
    return replace(
        metadata,
        families=(*metadata.families, ARCHITECTURE),
        capabilities=(metadata.capabilities[0], *dict.fromkeys(("vision", *metadata.capabilities[1:]))),
        projector_info=header_info(projector.header),
        dimensions=dimensions,
    )


def header_info(header: GGUFHeader) -> dict[str, object]:
    """Build ``model_info``: the header without chat templates; arrays and numbers without a JSON form are None."""
    keys = [key for key in sorted(header.values) if len(key) <= MAX_INFO_KEY and not key.startswith(_TEMPLATE)]
    info = {key: to_json_scalar(header.values[key]) for key in keys[:MAX_INFO_KEYS]}
    return {**info, "general.parameter_count": header.parameter_count}


def to_json_scalar(value: Scalar | GGUFArray) -> object:
    """Convert a scalar to its form in ``model_info``; None for an array or a number without a JSON form."""
    if isinstance(value, str):
        return value[:MAX_INFO_TEXT]
    if isinstance(value, float):
        return _shortest(value) if math.isfinite(value) else None
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def _shortest(value: float) -> float:
    """Round a 32-bit float to the fewest digits that identify it, as Go formats a float32: 1e-05."""
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        with contextlib.suppress(OverflowError):
            if _FLOAT.unpack(_FLOAT.pack(short))[0] == value:
                return short
    return value
