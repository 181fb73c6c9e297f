"""GGUF header that llama.cpp plans memory from: numbers of the architecture and tensors, without a vocabulary.

It is encoded from the parsed header, so it has only what the parser has checked, in a few kilobytes: the number of
tokens, not their texts. Integers become unsigned 32-bit ones and numbers with a fraction 32-bit floats, as llama.cpp
expects them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from corral_core.weights.ggml_types import TENSOR_TYPES
from corral_core.weights.gguf import ARRAY, DEFAULT_ALIGNMENT, MAGIC, SCALARS, STRING, GGUFArray, GGUFHeader, Scalar

_UINT32, _FLOAT32, _BOOL = 4, 6, 7
_GENERAL = ("general.architecture", "general.type", "tokenizer.ggml.token_type_count")
_TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}


def sparse_header(header: GGUFHeader, *, vocabulary: int) -> tuple[bytes, int]:
    """Return the header and the size of the file, whose tensors are a hole. ``vocabulary`` is the number of tokens."""
    architecture = header.get_str("general.architecture")
    entries = [_entry("tokenizer.ggml.model", "none"), _entry(f"{architecture}.vocab_size", vocabulary)]
    for key, value in header.values.items():
        if key in _GENERAL or (key.startswith(f"{architecture}.") and key != f"{architecture}.vocab_size"):
            entries.append(_entry(key, value))
    entries = [entry for entry in entries if entry]
    infos, offset = [], 0
    for tensor in header.tensors:
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        infos.append(_text(tensor.name) + shape + struct.pack("<IQ", _TYPE_NUMBERS[tensor.type], offset))
        offset += -(-tensor.size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    data = struct.pack("<4sIQQ", MAGIC, 3, len(infos), len(entries)) + b"".join(entries) + b"".join(infos)
    data += bytes(-len(data) % DEFAULT_ALIGNMENT)
    return data, len(data) + offset


def _entry(key: str, value: Scalar | GGUFArray) -> bytes:
    """Encode a key with its value; empty for a value that is out of range or was skipped."""
    if isinstance(value, GGUFArray):
        items = b"".join(_items(value))
        if not items:
            return b""
        return _text(key) + struct.pack("<IIQ", ARRAY, value.kind, value.count) + items
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", STRING) + _text(value)
    if isinstance(value, bool):
        return _text(key) + struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return _text(key) + struct.pack("<II", _UINT32, value) if 0 <= value < 2**32 else b""
    return _text(key) + struct.pack("<If", _FLOAT32, value) if abs(value) < 2**127 else b""


def _items(value: GGUFArray) -> Iterator[bytes]:
    scalar = SCALARS.get(value.kind)
    for item in value.items or ():
        if scalar is not None:
            yield scalar.pack(item)
        elif isinstance(item, str):
            yield _text(item)


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    return struct.pack("<Q", len(data)) + data
