"""Verbose metadata for ``/api/show`` with ``verbose: true``: all arrays and tensors of the header.

It is read from the file for each request and not stored: a vocabulary has megabytes, too much for the Model's status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corral_core.base.errors import GGUFError
from corral_core.weights.gguf import GGUFArray, GGUFHeader, Scalar, TensorInfo
from corral_core.weights.gguf_metadata import to_json_scalar
from corral_core.weights.split_header import read_weights_header


@dataclass(frozen=True, slots=True)
class VerboseMetadata:
    """``arrays`` maps keys to the items of the array as JSON values, nested arrays included."""

    arrays: Mapping[str, list[object]]
    tensors: Sequence[TensorInfo]

    def tensors_json(self) -> list[dict[str, object]]:
        """Convert to ``[{name, type, shape}]``, tensors and shapes in the order of the file."""
        return [{"name": one.name, "type": one.type, "shape": list(one.shape)} for one in self.tensors]


def read_verbose_metadata(path: Path) -> VerboseMetadata:
    """Read the header twice: the first pass lists the arrays that the second one keeps.

    Raises GGUFError, and SourceError if a part of a split file is missing.
    """
    header = read_weights_header(path, keep=_arrays(read_weights_header(path)))
    return VerboseMetadata({key: _items(path, header, key) for key in _arrays(header)}, header.tensors)


def _arrays(header: GGUFHeader) -> list[str]:
    return [key for key, value in header.values.items() if isinstance(value, GGUFArray)]


def _items(path: Path, header: GGUFHeader, key: str) -> list[object]:
    value = header.values[key]
    if not isinstance(value, GGUFArray) or value.items is None:
        raise GGUFError(f"{path} was changed while it was read")
    return [_item(item) for item in value.items]


def _item(item: Scalar | GGUFArray) -> object:
    if isinstance(item, GGUFArray):
        return [_item(inner) for inner in item.items or ()]
    return to_json_scalar(item)
