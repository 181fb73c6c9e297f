"""GGUF header parser for untrusted files; the format is specified in ggml's ``docs/gguf.md``.

- Every length and count is checked against the remaining file and a limit before memory is allocated for it.
- Long arrays are skipped, not built.
- Every failure, an unreadable file included, is a GGUFError.
- The file is read, not mapped: truncation during the read is an error, not a SIGBUS.

PyPI's ``gguf`` reader needs 3.5 s and 160 MB for the header of a 98 MB model (49,152 tokens), because it makes numpy
views of every vocabulary entry, and it trusts the lengths in the file. This parser needs 0.03 s and 2 MB, and keeps the
package out of the runner's image.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from corral_core.base.errors import GGUFError
from corral_core.weights.bounded_file import BoundedFile, ForwardReader
from corral_core.weights.ggml_types import TENSOR_TYPES

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

MAX_ENTRIES = 1 << 16
"""Key-value pairs, and tensors; the largest models have a few thousand."""
MAX_KEY = 1 << 16
MAX_TEXT = 16 << 20
MAX_TENSOR_NAME = 255
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 24
"""Elements of one array of numbers."""
MAX_TEXTS = 1 << 21
"""Strings in all arrays together (vocabulary and merges are below a million); bounds the parse time."""
MAX_NESTING = 2
MAX_HEADER = 256 << 20
KEPT_ELEMENTS = 1024
"""Arrays up to this length are kept (head counts of every layer, languages); longer ones only on request."""
MAX_KEPT = 1 << 20
"""Elements kept in all arrays that were not requested by key; further arrays are skipped."""
MAX_KEPT_TEXT = 64 << 20
"""Bytes of all keys and strings that are kept."""

SCALARS: Mapping[int, struct.Struct] = {
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
STRING: Final = 8
ARRAY: Final = 9

Scalar: TypeAlias = int | float | bool | str


@dataclass(frozen=True, slots=True)
class GGUFArray:
    """An array of the header; ``items`` is None if it was skipped. ``kind`` is the type number of the elements."""

    count: int
    items: tuple[Scalar | GGUFArray, ...] | None
    kind: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """``offset`` is relative to the tensor data, ``size`` in bytes; ``shape`` has the order of the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    size: int
    elements: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """Parsed header; ``data_offset`` is where the tensor data starts in the file.

    ``spans`` has the offsets in the file at which the type and value of each key start and end.
    """

    version: int
    values: Mapping[str, Scalar | GGUFArray]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def parameter_count(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    def get_str(self, key: str, default: str = "") -> str:
        value = self.values.get(key)
        return value if isinstance(value, str) else default

    def get_int(self, key: str, default: int = 0) -> int:
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def array_length(self, key: str) -> int:
        """Return the length of an array such as the vocabulary; 0 if it is missing."""
        value = self.values.get(key)
        return value.count if isinstance(value, GGUFArray) else 0


def read_header(path: Path, keep: Collection[str] = ()) -> GGUFHeader:
    """Read the header; arrays with a key in ``keep`` are built at any length. Raises GGUFError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise GGUFError(f"{path} is not a regular file")
        with path.open("rb", buffering=0) as file:
            return read_header_from(file, str(path), size=os.fstat(file.fileno()).st_size, keep=keep)
    except (OSError, ValueError) as error:
        raise GGUFError(f"{path} cannot be read: {error}") from error


def read_header_from(file: ForwardReader, name: str, *, size: int, keep: Collection[str] = ()) -> GGUFHeader:
    """Read the header of a file of ``size`` bytes that is read forward; ``name`` is for errors.

    Raises GGUFError and what ``file`` raises.
    """
    return _HeaderParser(BoundedFile(file, name, size=size, limit=MAX_HEADER), frozenset(keep)).header()


class _HeaderParser:
    """Parses one header in one pass."""

    def __init__(self, window: BoundedFile, keep: frozenset[str]) -> None:
        self._window = window
        self._keep = keep
        self._texts = 0
        self._kept = 0
        self._kept_text = 0
        self._spans: dict[str, tuple[int, int]] = {}

    def header(self) -> GGUFHeader:
        version = self._version()
        tensor_count = self._count("the number of tensors")
        value_count = self._count("the number of keys")
        values: dict[str, Scalar | GGUFArray] = {}
        for _ in range(value_count):
            key = self._text("a key", MAX_KEY)
            if key in values:
                raise self._window.error(f"the key {key[:100]!r} is duplicated")
            start = self._window.position
            values[key] = self._value(key, self._u32(key[:100]), depth=0)
            self._spans[key] = (start, self._window.position)
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        return self._checked(version, values, tensors=tensors)

    def _version(self) -> int:
        if self._window.size < 4 or self._window.read(4, "the magic number") != MAGIC:
            raise GGUFError(f"{self._window.name} is not a GGUF file: it does not start with 'GGUF'")
        version = self._u32("the version")
        if version in VERSIONS:
            return version
        if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
            raise GGUFError(f"{self._window.name} is a big-endian GGUF; only little-endian ones are supported")
        raise GGUFError(f"{self._window.name} is GGUF version {version}; versions 2 and 3 are supported")

    def _checked(
        self, version: int, values: Mapping[str, Scalar | GGUFArray], *, tensors: tuple[TensorInfo, ...]
    ) -> GGUFHeader:
        """Build the header after the checks on the whole: unique tensor names, alignment, tensors inside the file."""
        window = self._window
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise window.error("two tensors have the same name")
        alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise window.error("general.alignment is not a power of two")
        data_offset = -(-window.position // alignment) * alignment
        end = data_offset + max((tensor.offset + tensor.size for tensor in tensors), default=0)
        if tensors and end > window.size:
            raise GGUFError(f"{window.name} is truncated: its tensors need {end} bytes and it has {window.size}")
        return GGUFHeader(version, values, tensors, data_offset, self._spans)

    def _tensor(self) -> TensorInfo:
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
        if (shape[0] if shape else 1) % kind.block_size:
            raise self._window.error(f"a row of {what} is not a whole number of {kind.name} blocks")
        size, offset = elements // kind.block_size * kind.type_size, self._u64(what)
        return TensorInfo(name, shape, kind.name, offset, size, elements)

    def _value(self, key: str, kind: int, *, depth: int) -> Scalar | GGUFArray:
        scalar = SCALARS.get(kind)
        if scalar is not None:
            value: int | float | bool = scalar.unpack(self._window.read(scalar.size, key[:100]))[0]
            return value
        if kind == STRING:
            return self._text(key[:100], MAX_TEXT)
        if kind == ARRAY:
            return self._array(key, depth)
        raise self._window.error(f"{key[:100]!r} has the unknown type {kind}")

    def _array(self, key: str, depth: int) -> GGUFArray:
        what = f"the array {key[:100]!r}"
        kind, count = self._u32(what), self._u64(what)
        scalar = SCALARS.get(kind)
        least = scalar.size if scalar is not None else 8 if kind == STRING else 12
        if depth >= MAX_NESTING or count > MAX_ELEMENTS or count * least > self._window.remaining:
            raise self._window.error(f"{what} claims {count} elements at depth {depth}")
        if scalar is None:
            self._spend(count, what)
        if key in self._keep or self._keeps(count):
            if scalar is not None:
                numbers = self._window.read(count * scalar.size, what)
                return GGUFArray(count, tuple(value for (value,) in scalar.iter_unpack(numbers)), kind)
            return GGUFArray(count, tuple(self._value(key, kind, depth=depth + 1) for _ in range(count)), kind)
        if scalar is not None:
            self._window.skip(count * scalar.size, what)
        elif kind == STRING:
            self._window.skip_strings(count, what)
        else:
            raise self._window.error(f"{what} has {count} elements of the type {kind}")
        return GGUFArray(count, None, kind)

    def _keeps(self, count: int) -> bool:
        """Whether an array of this length is kept; counts kept elements."""
        if count > KEPT_ELEMENTS or self._kept + count > MAX_KEPT:
            return False
        self._kept += count
        return True

    def _spend(self, count: int, what: str) -> None:
        self._texts += count
        if self._texts > MAX_TEXTS:
            raise self._window.error(f"{what} brings the strings of all arrays to {self._texts}, at most {MAX_TEXTS}")

    def _text(self, what: str, maximum: int) -> str:
        length = self._u64(what)
        if length > maximum:
            raise self._window.error(f"{what} claims {length} bytes, at most {maximum} are allowed")
        self._kept_text += length
        if self._kept_text > MAX_KEPT_TEXT:
            raise self._window.error(f"{what} brings all strings to {self._kept_text} bytes, at most {MAX_KEPT_TEXT}")
        return self._window.read(length, what).decode("utf-8", "replace")

    def _count(self, what: str) -> int:
        count = self._u64(what)
        if count > MAX_ENTRIES or count * 13 > self._window.remaining:
            raise self._window.error(f"{what} is {count}")
        return count

    def _u32(self, what: str) -> int:
        return int.from_bytes(self._window.read(4, what), "little")

    def _u64(self, what: str) -> int:
        return int.from_bytes(self._window.read(8, what), "little")
