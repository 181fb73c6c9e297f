"""The header of a GGUF file, read without its tensors; a model file is untrusted input.

PyPI's ``gguf`` reader was judged and not taken: for the header of a 98 MB model (49,152 tokens) it needs 3.5 s and
160 MB, since it makes numpy views of every vocabulary entry, and it believes the lengths that the file claims, where
this reader needs 0.03 s and 2 MB, and keeps the gguf package out of the runner's image.

What always holds: a length or count is checked against the rest of the file and against a cap before anything is
allocated for it; long arrays are walked over, not built; every failure, an unreadable file included, is a GGUFError.
The file is read, not mapped: one that is cut short meanwhile is an error and no SIGBUS.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from corral_core.errors import GGUFError
from corral_core.ggml_types import TENSOR_TYPES
from corral_core.window import Window

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

MAX_ENTRIES = 1 << 16
"""Key-value pairs, and tensors; the largest models have some thousands."""
MAX_KEY = 1 << 16
MAX_TEXT = 16 << 20
MAX_TENSOR_NAME = 255
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 24
"""Elements of one array of numbers."""
MAX_TEXTS = 1 << 21
"""Texts in all arrays together (vocabulary and merges are below a million); bounds the time of the walk."""
MAX_NESTING = 2
MAX_HEADER = 256 << 20
KEPT_ELEMENTS = 1024
"""Arrays up to this long are kept (head counts of every layer, languages); longer ones only when asked for."""
MAX_KEPT = 1 << 20
"""Elements kept in all arrays together, beside those that were asked for; further ones are walked over."""
MAX_KEPT_TEXT = 64 << 20
"""Bytes of all keys and texts that are kept."""

_SCALARS: Mapping[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9

Scalar: TypeAlias = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Array:
    """An array of the header; ``items`` is None when it was walked over."""

    count: int
    items: tuple[Scalar | Array, ...] | None


@dataclass(frozen=True, slots=True)
class Tensor:
    """``offset`` counts from the beginning of the tensors' data, ``size`` is in bytes; ``shape`` is as in the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int
    elements: int


@dataclass(frozen=True, slots=True)
class Header:
    """``data_offset`` is where the tensors begin; ``file_size`` is in bytes, as the file was when it was read."""

    version: int
    values: Mapping[str, Scalar | Array]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_size: int

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def parameter_count(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    def text(self, key: str, default: str = "") -> str:
        value = self.values.get(key)
        return value if isinstance(value, str) else default

    def integer(self, key: str, default: int = 0) -> int:
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def count(self, key: str) -> int:
        """The length of an array, of the vocabulary for instance; 0 when there is none."""
        value = self.values.get(key)
        return value.count if isinstance(value, Array) else 0


def read_header(path: Path, keep: Collection[str] = ()) -> Header:
    """The header of the file; arrays named in ``keep`` are built whatever their length. Raises GGUFError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise GGUFError(f"{path} is not a regular file")
        with path.open("rb", buffering=0) as file:
            return _Parser(Window(file, path, limit=MAX_HEADER), frozenset(keep)).header()
    except (OSError, ValueError) as error:
        raise GGUFError(f"{path} cannot be read: {error}") from error


class _Parser:
    """One pass over one header."""

    def __init__(self, window: Window, keep: frozenset[str]) -> None:
        self._window = window
        self._keep = keep
        self._texts = 0
        self._kept = 0
        self._kept_text = 0

    def header(self) -> Header:
        version = self._version()
        tensor_count = self._count("the number of tensors")
        value_count = self._count("the number of keys")
        values: dict[str, Scalar | Array] = {}
        for _ in range(value_count):
            key = self._text("a key", MAX_KEY)
            if key in values:
                raise self._window.error(f"the key {key[:100]!r} is there twice")
            values[key] = self._value(key, self._u32(key[:100]), depth=0)
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        return self._checked(version, values, tensors=tensors)

    def _version(self) -> int:
        if self._window.size < 4 or self._window.take(4, "the magic number") != MAGIC:
            raise GGUFError(f"{self._window.path} is not a GGUF file: it does not begin with 'GGUF'")
        version = self._u32("the version")
        if version in VERSIONS:
            return version
        if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
            raise GGUFError(f"{self._window.path} is a big-endian GGUF; only little-endian ones are supported")
        raise GGUFError(f"{self._window.path} is GGUF version {version}; versions 2 and 3 are supported")

    def _checked(self, version: int, values: Mapping[str, Scalar | Array], *, tensors: tuple[Tensor, ...]) -> Header:
        """The header, after the checks that need all of it: names once, alignment, every tensor inside the file."""
        window = self._window
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise window.error("two tensors have one name")
        alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise window.error("general.alignment is no power of two")
        data_offset = -(-window.position // alignment) * alignment
        end = data_offset + max((tensor.offset + tensor.size for tensor in tensors), default=0)
        if tensors and end > window.size:
            raise GGUFError(f"{window.path} is truncated: its tensors need {end} bytes and it has {window.size}")
        return Header(version, values, tensors, data_offset, window.size)

    def _tensor(self) -> Tensor:
        name = self._text("a tensor's name", MAX_TENSOR_NAME)
        what = f"the tensor {name!r}"
        dimensions = self._u32(what)
        if dimensions > MAX_DIMENSIONS:
            raise self._window.error(f"{what} has {dimensions} dimensions, at most {MAX_DIMENSIONS} are allowed")
        shape = tuple(self._u64(what) for _ in range(dimensions))
        kind = TENSOR_TYPES.get(number := self._u32(what))
        if kind is None:
            raise self._window.error(f"{what} has the unknown type {number}")
        elements = 1
        for length in shape:
            elements *= length
        if (shape[0] if shape else 1) % kind.block:
            raise self._window.error(f"a row of {what} is no whole number of {kind.name} blocks")
        size, offset = elements // kind.block * kind.size, self._u64(what)
        return Tensor(name, shape, kind.name, offset, size, elements)

    def _value(self, key: str, kind: int, *, depth: int) -> Scalar | Array:
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            value: int | float | bool = scalar.unpack(self._window.take(scalar.size, key[:100]))[0]
            return value
        if kind == _STRING:
            return self._text(key[:100], MAX_TEXT)
        if kind == _ARRAY:
            return self._array(key, depth)
        raise self._window.error(f"{key[:100]!r} has the unknown type {kind}")

    def _array(self, key: str, depth: int) -> Array:
        what = f"the array {key[:100]!r}"
        kind, count = self._u32(what), self._u64(what)
        scalar = _SCALARS.get(kind)
        least = scalar.size if scalar is not None else 8 if kind == _STRING else 12
        if depth >= MAX_NESTING or count > MAX_ELEMENTS or count * least > self._window.left:
            raise self._window.error(f"{what} claims {count} elements at depth {depth}")
        if scalar is None:
            self._spend(count, what)
        if key in self._keep or self._keeps(count):
            if scalar is not None:
                numbers = self._window.take(count * scalar.size, what)
                return Array(count, tuple(value for (value,) in scalar.iter_unpack(numbers)))
            return Array(count, tuple(self._value(key, kind, depth=depth + 1) for _ in range(count)))
        if scalar is not None:
            self._window.skip(count * scalar.size, what)
        elif kind == _STRING:
            self._window.skip_texts(count, what)
        else:
            raise self._window.error(f"{what} has {count} elements of the type {kind}")
        return Array(count, None)

    def _keeps(self, count: int) -> bool:
        """Whether an array of this length is built; counts what is."""
        if count > KEPT_ELEMENTS or self._kept + count > MAX_KEPT:
            return False
        self._kept += count
        return True

    def _spend(self, count: int, what: str) -> None:
        self._texts += count
        if self._texts > MAX_TEXTS:
            raise self._window.error(f"{what} brings the texts of all arrays to {self._texts}, at most {MAX_TEXTS}")

    def _text(self, what: str, maximum: int) -> str:
        length = self._u64(what)
        if length > maximum:
            raise self._window.error(f"{what} claims {length} bytes, at most {maximum} are allowed")
        self._kept_text += length
        if self._kept_text > MAX_KEPT_TEXT:
            raise self._window.error(f"{what} brings all texts to {self._kept_text} bytes, at most {MAX_KEPT_TEXT}")
        return self._window.take(length, what).decode("utf-8", "replace")

    def _count(self, what: str) -> int:
        count = self._u64(what)
        if count > MAX_ENTRIES or count * 13 > self._window.left:
            raise self._window.error(f"{what} is {count}")
        return count

    def _u32(self, what: str) -> int:
        return int.from_bytes(self._window.take(4, what), "little")

    def _u64(self, what: str) -> int:
        return int.from_bytes(self._window.take(8, what), "little")
