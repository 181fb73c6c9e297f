"""Synthetic GGUF files: valid ones, and the parts for invalid ones."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

_LAYOUTS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
_SIZES = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    8: (32, 34),
    12: (256, 144),
    14: (256, 210),
    30: (1, 2),
    39: (32, 17),
}
"""ggml type to values per block and bytes per block."""


@dataclass(frozen=True, slots=True)
class TypedValue:
    """A value with an explicit GGUF type; ``item`` is the element type of an array."""

    kind: int
    value: object
    item: int = U32


@dataclass(frozen=True, slots=True)
class FakeTensor:
    """A tensor of ``data`` or zeros; ``kind`` is a ggml type (0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0, ...)."""

    name: str
    shape: tuple[int, ...]
    kind: int = 0
    data: bytes | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        block, size = _SIZES[self.kind]
        elements = 1
        for length in self.shape:
            elements *= length
        return elements // block * size


Value = int | float | bool | str | Sequence[str] | TypedValue

LLAMA: Mapping[str, Value] = {
    "general.architecture": "llama",
    "general.type": "model",
    "general.name": "Tiny",
    "general.file_type": 3,
    "llama.block_count": 1,
    "llama.context_length": 256,
    "llama.embedding_length": 32,
    "llama.attention.head_count": 4,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["<s>", "</s>", "a", "b"],
    "tokenizer.chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
}
TENSORS = (FakeTensor("token_embd.weight", (32, 4), 8), FakeTensor("output_norm.weight", (32,)))


def gguf_bytes(
    values: Mapping[str, Value] | None = None,
    tensors: Sequence[FakeTensor] = TENSORS,
    *,
    version: int = 3,
    alignment: int = 32,
    data: bool = True,
) -> bytes:
    """Build a file; ``values`` replaces LLAMA, and without ``data`` the file ends after the header."""
    values = LLAMA if values is None else values
    infos, offset, contents = b"", 0, list[bytes]()
    for tensor in tensors:
        infos += encode_string(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        infos += struct.pack("<IQ", tensor.kind, offset)
        padded = -(-tensor.size // alignment) * alignment
        if data:
            contents.append((tensor.data or b"").ljust(padded, b"\0"))
        offset += padded
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(values))
    header = head + b"".join(encode_string(key) + _encode_typed(value) for key, value in values.items()) + infos
    padding = bytes(-len(header) % alignment)
    return b"".join((header, padding, *contents)) if data else header


def encode_string(value: str) -> bytes:
    """Encode a length-prefixed string."""
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _encode_typed(value: Value) -> bytes:
    if isinstance(value, TypedValue):
        return struct.pack("<I", value.kind) + _encode_value(value)
    if isinstance(value, str):
        return _encode_typed(TypedValue(STRING, value))
    if isinstance(value, bool):
        return _encode_typed(TypedValue(BOOL, value))
    if isinstance(value, int | float):
        return _encode_typed(TypedValue(U32 if isinstance(value, int) else F32, value))
    return _encode_typed(TypedValue(ARRAY, list(value), item=STRING))


def _encode_value(value: TypedValue) -> bytes:
    if value.kind == STRING:
        return encode_string(str(value.value))
    if value.kind != ARRAY:
        return struct.pack("<" + _LAYOUTS[value.kind], value.value)
    assert isinstance(value.value, list)
    items = [item if isinstance(item, TypedValue) else TypedValue(value.item, item) for item in value.value]
    return struct.pack("<IQ", value.item, len(items)) + b"".join(_encode_value(item) for item in items)
