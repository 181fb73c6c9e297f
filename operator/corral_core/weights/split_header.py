"""Header of weights that may be split into several GGUF files, as llama.cpp's ``llama-gguf-split`` does.

- The first part has the keys of the model; each part has the infos of its own tensors.
- Each part says in ``split.no`` and ``split.count`` which one it is. llama.cpp finds the parts by their names
  (``llama_model_loader`` in ``src/llama-model-loader.cpp``), so names and keys must agree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corral_core.base.errors import GGUFError
from corral_core.sources.locate import weight_parts
from corral_core.weights.bounded_file import ForwardReader
from corral_core.weights.gguf import MAX_ENTRIES, GGUFHeader, read_header, read_header_from


@dataclass(frozen=True, slots=True)
class OpenPart:
    """An open weights file, or one part of it. ``name`` is for errors; ``size`` is the file's in bytes."""

    name: str
    file: ForwardReader
    size: int


def read_weights_header(path: Path, keep: Collection[str] = ()) -> GGUFHeader:
    """Read the header of weights by their file or their first part, with the tensors of all parts.

    ``keep`` is as for ``read_header``. Raises GGUFError, and SourceError if a part is missing.
    """
    parts = weight_parts(path)
    return _merged([read_header(part, keep) for part in parts], [str(part) for part in parts])


def read_weights_header_from(parts: Sequence[OpenPart]) -> GGUFHeader:
    """Read the header of weights from open files. Raises GGUFError and what reading the files raises."""
    headers = [read_header_from(part.file, part.name, size=part.size) for part in parts]
    return _merged(headers, [part.name for part in parts])


def _merged(headers: Sequence[GGUFHeader], names: Sequence[str]) -> GGUFHeader:
    first, count = headers[0], headers[0].get_int("split.count")
    if len(headers) == 1 and count > 1:
        number = first.get_int("split.no") + 1
        raise GGUFError(
            f"{names[0]} is part {number} of {count} of a split file; keep the names of all parts, such as "
            f"model-{number:05}-of-{count:05}.gguf, and name the first part"
        )
    if len(headers) == 1:
        return first
    for index, (header, name) in enumerate(zip(headers, names, strict=True)):
        said = header.get_int("split.no", -1), header.get_int("split.count", -1)
        if said != (index, len(headers)):
            raise GGUFError(
                f"{name} is not part {index + 1} of {len(headers)} as its name says: its header has split.no {said[0]} "
                f"and split.count {said[1]}; copy the parts of one file"
            )
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    expected = first.get_int("split.tensors.count", len(tensors))
    if len(tensors) != expected or len({tensor.name for tensor in tensors}) != len(tensors):
        raise GGUFError(f"{names[0]}: its parts have {len(tensors)} tensors instead of {expected} different ones")
    if len(tensors) > MAX_ENTRIES:
        raise GGUFError(f"{names[0]}: its parts have {len(tensors)} tensors, at most {MAX_ENTRIES} are allowed")
    return replace(first, tensors=tensors)
