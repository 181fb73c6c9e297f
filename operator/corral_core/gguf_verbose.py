"""What a verbose ``/api/show`` tells beside the facts: every array of the header, and every tensor.

It is read from the file when somebody asks and kept nowhere: a vocabulary is megabytes, and facts go to the API server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corral_core.errors import GGUFError
from corral_core.gguf import Array, Header, Scalar, Tensor, read_header
from corral_core.gguf_facts import json_value


@dataclass(frozen=True, slots=True)
class Verbose:
    """``arrays`` has the items of every array by its key, as JSON has them, nested ones too."""

    arrays: Mapping[str, list[object]]
    tensors: Sequence[Tensor]

    def tensors_json(self) -> list[dict[str, object]]:
        """``[{name, type, shape}]`` in the order of the file; a shape is written as the file has it."""
        return [{"name": one.name, "type": one.type, "shape": list(one.shape)} for one in self.tensors]


def read_verbose(path: Path) -> Verbose:
    """Reads the header twice: it says which arrays there are before they can be asked for. Raises GGUFError."""
    header = read_header(path, keep=_arrays(read_header(path)))
    return Verbose({key: _items(path, header, key) for key in _arrays(header)}, header.tensors)


def _arrays(header: Header) -> list[str]:
    return [key for key, value in header.values.items() if isinstance(value, Array)]


def _items(path: Path, header: Header, key: str) -> list[object]:
    value = header.values[key]
    if not isinstance(value, Array) or value.items is None:
        raise GGUFError(f"{path} was changed while it was read")
    return [_item(item) for item in value.items]


def _item(item: Scalar | Array) -> object:
    if isinstance(item, Array):
        return [_item(inner) for inner in item.items or ()]
    return json_value(item)
