"""Changes to the header of a GGUF file, and the file that results: new keys and names, data copied by range.

- A value that is not changed is copied as it is in the file, whatever its type and length.
- A tensor keeps its type and its data; it may get another name, fewer rows or those of another, or be left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from corral_core.base.errors import GGUFError
from corral_core.weights.ggml_types import TENSOR_TYPES
from corral_core.weights.gguf import DEFAULT_ALIGNMENT, MAGIC, STRING, GGUFArray, GGUFHeader, Scalar, TensorInfo

U8: Final = 0
U32: Final = 4
I32: Final = 5
F32: Final = 6
ARRAY: Final = 9
COPY_BYTES: Final = 4 << 20
_NUMBERS: Final = {kind.name: number for number, kind in TENSOR_TYPES.items()}
_ELEMENT_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


ReadValue = Callable[[str], bytes]
"""Returns the encoded type and value of a key of the file; empty if it does not have the key."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Value of a key, as one of these.

    - ``data``: an encoded type and value.
    - ``compute``: what returns that from values of the file.
    - Else the value of ``source`` is copied, its first ``count`` items if that is given.
    """

    source: str = ""
    count: int | None = None
    data: bytes = b""
    compute: Callable[[ReadValue], bytes] | None = None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """``info`` is the tensor in the result; ``sources`` are those in the file whose data it has, in this order."""

    info: TensorInfo
    sources: tuple[TensorInfo, ...]


class HeaderEdits:
    """Changes to the ``header`` of a file that is not split."""

    def __init__(self, header: GGUFHeader) -> None:
        self._original = header
        self._values = dict(header.values)
        self._entries = {key: _Entry(key) for key in header.values}
        self._tensors = [_Tensor(tensor, (tensor,)) for tensor in header.tensors]

    @property
    def header(self) -> GGUFHeader:
        """The changed header; offsets and ``data_offset`` are not those of the result."""
        return replace(self._original, values=self._values, tensors=tuple(tensor.info for tensor in self._tensors))

    @property
    def size(self) -> int:
        """Bytes of the result, at most; the real number is that of ``write``."""
        return self._original.data_offset + (1 << 16) + sum(_aligned(tensor.info.size) for tensor in self._tensors)

    def set_architecture(self, name: str) -> None:
        """Change the architecture and the prefix of its keys."""
        before = self._original.get_str("general.architecture")
        for key in [key for key in self._entries if key.startswith(f"{before}.")]:
            self.copy(key, name + key.removeprefix(before))
            self.remove(key)
        self.set_text("general.architecture", name)

    def copy(self, key: str, other: str) -> None:
        """Copy the value of ``key``, if there is one, to the key ``other``."""
        if key in self._entries:
            self._entries[other], self._values[other] = self._entries[key], self._values[key]

    def remove(self, key: str) -> None:
        self._entries.pop(key, None)
        self._values.pop(key, None)

    def has(self, key: str) -> bool:
        return key in self._values

    def set_int(self, key: str, value: int) -> None:
        if not 0 <= value < 1 << 32:
            raise GGUFError(f"{value} is out of range for {key[:100]!r}")
        self._set(key, value, struct.pack("<II", U32, value))

    def set_float(self, key: str, value: float) -> None:
        data = struct.pack("<If", F32, value)
        self._set(key, struct.unpack_from("<f", data, 4)[0], data)  # as a reader of the result has it

    def set_text(self, key: str, value: str) -> None:
        self._set(key, value, struct.pack("<I", STRING) + _text(value))

    def set_ints(self, key: str, values: tuple[int, ...]) -> None:
        if not all(-(1 << 31) <= value < 1 << 31 for value in values):
            raise GGUFError(f"{values} is out of range for {key[:100]!r}")
        self._set(key, GGUFArray(len(values), values, I32), encoded_numbers(I32, values))

    def compute(self, key: str, value: GGUFArray, encode: Callable[[ReadValue], bytes]) -> None:
        """Set an array whose items are computed from long arrays of the file when it is written."""
        self._values[key], self._entries[key] = value, _Entry(compute=encode)

    def truncate(self, key: str, count: int) -> None:
        """Keep the first ``count`` items of an array, if there are more."""
        value = self._values.get(key)
        if isinstance(value, GGUFArray) and value.count > count and value.kind in (STRING, *_ELEMENT_SIZES):
            items = value.items[:count] if value.items is not None else None
            self._values[key] = GGUFArray(count, items, value.kind)
            self._entries[key] = replace(self._entries[key], count=count)

    def hide_tensors(self, *prefixes: str) -> None:
        """Leave out the tensors whose names begin so."""
        self._tensors = [tensor for tensor in self._tensors if not tensor.info.name.startswith(prefixes)]

    def rename_tensors(self, part: str, new_part: str) -> None:
        """Replace a part of the names of all tensors; a part that ends with ``$`` is the end of a name."""
        self._tensors = [
            replace(tensor, info=replace(tensor.info, name=_renamed(tensor.info.name, part, new_part)))
            for tensor in self._tensors
        ]

    def rename_tensor(self, name: str, new_name: str) -> None:
        """Rename the tensor ``name``, if there is one."""
        self._tensors = [
            replace(tensor, info=replace(tensor.info, name=new_name)) if tensor.info.name == name else tensor
            for tensor in self._tensors
        ]

    def truncate_rows(self, name: str, rows: int) -> None:
        """Keep the first rows of a matrix, if it has more."""
        self._tensors = [_truncated(one, rows) if one.info.name == name else one for one in self._tensors]

    def join_rows(self, suffix: str, other_suffix: str) -> None:
        """Join matrices whose names differ in the suffix: first the rows of the one, then those of the other, whose
        name the result has.
        """
        firsts = {one.info.name.removesuffix(suffix): one for one in self._tensors if one.info.name.endswith(suffix)}
        joined, used = [], set()
        for tensor in self._tensors:
            block = tensor.info.name.removesuffix(other_suffix)
            first = firsts.get(block) if block != tensor.info.name else None
            if first is not None and _can_join(first.info, tensor.info):
                used.add(first.info.name)
                joined.append(_joined(first, tensor))
            else:
                joined.append(tensor)
        self._tensors = [tensor for tensor in joined if tensor.info.name not in used]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, None if there is none of this name."""
        return next((tensor.info.shape for tensor in self._tensors if tensor.info.name == name), None)

    def write(self, source: BinaryIO, target: BinaryIO, *, wrote: Callable[[bytes], object]) -> int:
        """Write the result from the original file, which is verified already, and return its size in bytes.

        ``wrote`` gets each piece of data. Raises GGUFError if the file is not that of the header, and OSError.
        """
        size = 0
        for piece in self._pieces(source):
            target.write(piece)
            wrote(piece)
            size += len(piece)
        return size

    def _set(self, key: str, value: Scalar | GGUFArray, data: bytes) -> None:
        self._values[key], self._entries[key] = value, _Entry(data=data)

    def _pieces(self, source: BinaryIO) -> Iterator[bytes]:
        keys = [key for key in self._entries if key != "general.alignment"]  # the result has the default
        head = struct.pack("<4sIQQ", MAGIC, 3, len(self._tensors), len(keys))
        head += b"".join(_text(key) + self._encoded(key, source) for key in keys) + self._infos()
        yield head + bytes(-len(head) % DEFAULT_ALIGNMENT)
        for tensor in self._tensors:
            left = tensor.info.size
            for info in tensor.sources:
                size = min(left, info.size)
                yield from self._data(info, source, size=size)
                left -= size
            yield bytes(-tensor.info.size % DEFAULT_ALIGNMENT)

    def _data(self, info: TensorInfo, source: BinaryIO, *, size: int) -> Iterator[bytes]:
        source.seek(self._original.data_offset + info.offset)
        while size:
            piece = source.read(min(size, COPY_BYTES))
            if not piece:
                raise GGUFError(f"the file ends inside the tensor {info.name!r}")
            size -= len(piece)
            yield piece

    def _infos(self) -> bytes:
        infos, offset = b"", 0
        for tensor in self._tensors:
            shape = tensor.info.shape
            infos += _text(tensor.info.name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            infos += struct.pack("<IQ", _NUMBERS[tensor.info.type], offset)
            offset += _aligned(tensor.info.size)
        return infos

    def _encoded(self, key: str, source: BinaryIO) -> bytes:
        entry = self._entries[key]
        if entry.data:
            return entry.data
        if entry.compute is not None:
            try:
                return entry.compute(lambda name: self._read(name, source))
            except struct.error as error:
                raise GGUFError(f"{key[:100]!r} is damaged: {error}") from error
        data = self._read(entry.source, source)
        return data if entry.count is None else _first_items(data, entry.count)

    def _read(self, key: str, source: BinaryIO) -> bytes:
        start, end = self._original.spans.get(key, (0, 0))
        source.seek(start)
        data = source.read(end - start)
        if len(data) != end - start:
            raise GGUFError(f"the file ends inside {key[:100]!r}")
        return data


def encoded_numbers(kind: int, items: Sequence[int]) -> bytes:
    """Encode an array of bytes (U8) or of 32-bit numbers (I32)."""
    return struct.pack(f"<IIQ{len(items)}{'B' if kind == U8 else 'i'}", ARRAY, kind, len(items), *items)


def decoded_numbers(data: bytes) -> tuple[int, ...]:
    """Decode an encoded array of 32-bit numbers; empty if it is none."""
    outer, kind, count = struct.unpack_from("<IIQ", data) if len(data) >= 16 else (0, 0, 0)
    return struct.unpack_from(f"<{count}i", data, 16) if outer == ARRAY and kind in (I32, U32) else ()


def decoded_texts(data: bytes) -> Iterator[bytes]:
    """Decode an encoded array of strings; empty if it is none."""
    if len(data) < 16 or struct.unpack_from("<II", data) != (ARRAY, STRING):
        return
    at = 16
    for _ in range(struct.unpack_from("<Q", data, 8)[0]):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 8 : at + 8 + length]
        at += 8 + length


def _can_join(first: TensorInfo, second: TensorInfo) -> bool:
    return len(first.shape) == len(second.shape) == 2 and (first.shape[0], first.type) == (second.shape[0], second.type)


def _joined(first: _Tensor, second: _Tensor) -> _Tensor:
    info = replace(
        second.info,
        shape=(second.info.shape[0], first.info.shape[1] + second.info.shape[1]),
        size=first.info.size + second.info.size,
        elements=first.info.elements + second.info.elements,
    )
    return _Tensor(info, (*first.sources, *second.sources))


def _truncated(tensor: _Tensor, rows: int) -> _Tensor:
    info = tensor.info
    if len(info.shape) != 2 or info.shape[1] <= rows:
        return tensor
    size, elements = info.size // info.shape[1] * rows, info.elements // info.shape[1] * rows
    return replace(tensor, info=replace(info, shape=(info.shape[0], rows), size=size, elements=elements))


def _first_items(data: bytes, count: int) -> bytes:
    """Return an encoded array with its first ``count`` items."""
    _, kind, _ = struct.unpack_from("<IIQ", data)
    end = 16
    if kind == STRING:
        for _ in range(count):
            end += 8 + int(struct.unpack_from("<Q", data, end)[0])
    else:
        end += count * _ELEMENT_SIZES[kind]
    return struct.pack("<IIQ", ARRAY, kind, count) + data[16:end]


def _renamed(name: str, part: str, new_part: str) -> str:
    if part.endswith("$"):
        return name.removesuffix(part[:-1]) + new_part if name.endswith(part[:-1]) else name
    return name.replace(part, new_part, 1)


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _aligned(size: int) -> int:
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
