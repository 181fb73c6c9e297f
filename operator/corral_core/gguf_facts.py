"""What Ollama tells clients about a model, from the header of its GGUF.

The facts go to status and into JSON, so they hold nothing that JSON or the API server cannot: no infinite numbers, no
integers beyond 64 bits, no texts without end.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections import Counter
from pathlib import Path

from corral_core.errors import GGUFError
from corral_core.facts import ModelFacts
from corral_core.ggml_types import FILE_TYPES
from corral_core.gguf import Array, Header, Scalar, read_header
from corral_core.shape import shape_of
from corral_core.template_facts import template_capabilities

MAX_TEMPLATE = 256 << 10
"""Characters of a chat template; the longest known are below 20,000."""
MAX_INFO_TEXT = 1024
"""Characters of one text in ``info``; what is longer is cut."""
MAX_INFO_KEYS = 512
MAX_INFO_KEY = 256

_TEMPLATE = "tokenizer.chat_template"
_FLOAT = struct.Struct("<f")
_NOT_MODELS = frozenset({"adapter", "imatrix", "mmproj"})


def read_facts(path: Path) -> ModelFacts:
    """The facts of the weights in the file. Raises GGUFError, whose text names the file once, and OSError."""
    header = read_header(path)
    try:
        return facts_of(header, path.stat().st_size)
    except GGUFError as error:
        raise GGUFError(f"{path}: {error}") from error


def facts_of(header: Header, size: int) -> ModelFacts:
    """The facts of a model whose weights file has ``size`` bytes.

    Raises GGUFError when the header is of something that is no model, or lacks what every model has.
    """
    architecture = header.text("general.architecture")
    if not architecture:
        raise GGUFError("the GGUF lacks general.architecture, so it is no model that could be loaded")
    if header.text("general.type") in _NOT_MODELS:
        raise GGUFError(f"the GGUF holds an {header.text('general.type')}, no model")
    template = header.text(_TEMPLATE)
    if len(template) > MAX_TEMPLATE:
        raise GGUFError(f"the chat template has {len(template)} characters, at most {MAX_TEMPLATE} are allowed")
    return ModelFacts(
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
        info=_info(header),
        shape=shape_of(header),
    )


def human_number(number: int) -> str:
    """A count of parameters as Ollama's ``format.HumanNumber`` writes it: ``1.2B``, ``134.52M``, ``8B``."""
    for size, unit, places in ((10**9, "B", 1), (10**6, "M", 2)):
        if number >= size:
            return f"{number // size}{unit}" if number % size == 0 else f"{number / size:.{places}f}{unit}"
    return f"{number / 1000:.0f}K" if number >= 1000 else str(number)


def _length(header: Header, key: str) -> int:
    """A length in tokens or dimensions; 0 when there is none or the number makes no sense."""
    length = header.integer(key)
    return length if 0 <= length < 2**31 else 0


def _quantization(header: Header) -> str:
    """The name of ``general.file_type``; without one, of the type that most parameters have."""
    named = FILE_TYPES.get(header.integer("general.file_type", -1))
    if named is not None:
        return named
    by_type: Counter[str] = Counter()
    for tensor in header.tensors:
        by_type[tensor.type] += tensor.elements
    return by_type.most_common(1)[0][0] if by_type else "unknown"


def _capabilities(header: Header, architecture: str, template: str) -> tuple[str, ...]:
    found = ["embedding" if f"{architecture}.pooling_type" in header.values else "completion"]
    if f"{architecture}.vision.block_count" in header.values:
        found.append("vision")
    if f"{architecture}.audio.block_count" in header.values:
        found.append("audio")
    return (*found, *template_capabilities(template))


def _info(header: Header) -> dict[str, object]:
    """The header's keys without the chat templates; arrays, and numbers that JSON lacks, are None."""
    keys = [key for key in sorted(header.values) if len(key) <= MAX_INFO_KEY and not key.startswith(_TEMPLATE)]
    info = {key: json_value(header.values[key]) for key in keys[:MAX_INFO_KEYS]}
    return {**info, "general.parameter_count": header.parameter_count}


def json_value(value: Scalar | Array) -> object:
    """A scalar as ``model_info`` has it; None for an array, and for a number that JSON lacks."""
    if isinstance(value, str):
        return value[:MAX_INFO_TEXT]
    if isinstance(value, float):
        return _shortest(value) if math.isfinite(value) else None
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def _shortest(value: float) -> float:
    """A number of 32 bits with as few digits as tell it from its neighbours, as Go writes one: 1e-05."""
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        with contextlib.suppress(OverflowError):
            if _FLOAT.unpack(_FLOAT.pack(short))[0] == value:
                return short
    return value
