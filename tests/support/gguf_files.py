"""Small synthetic GGUF files: valid ones, and the raw pieces to write bad ones from."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

_LAYOUTS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
_SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34)}
"""ggml type: values of a block, bytes of a block."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A value of a given GGUF type; for an array ``item`` is the type of the elements."""

    kind: int
    value: object
    item: int = U32


@dataclass(frozen=True, slots=True)
class FakeTensor:
    """A tensor, of zeros without ``data``; ``kind`` is a ggml type (0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0)."""

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


Value = int | float | bool | str | Sequence[str] | Typed

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
    """A whole file; ``values`` replaces LLAMA, and without ``data`` the file ends after its header."""
    values = LLAMA if values is None else values
    infos, offset, contents = b"", 0, list[bytes]()
    for tensor in tensors:
        infos += text(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        infos += struct.pack("<IQ", tensor.kind, offset)
        padded = -(-tensor.size // alignment) * alignment
        contents.append((tensor.data or b"").ljust(padded, b"\0"))
        offset += padded
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(values))
    header = head + b"".join(text(key) + _typed(value) for key, value in values.items()) + infos
    padding = bytes(-len(header) % alignment)
    return b"".join((header, padding, *contents)) if data else header


def text(value: str) -> bytes:
    """A length-prefixed text."""
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _typed(value: Value) -> bytes:
    if isinstance(value, Typed):
        return struct.pack("<I", value.kind) + _raw(value)
    if isinstance(value, str):
        return _typed(Typed(STRING, value))
    if isinstance(value, bool):
        return _typed(Typed(BOOL, value))
    if isinstance(value, int | float):
        return _typed(Typed(U32 if isinstance(value, int) else F32, value))
    return _typed(Typed(ARRAY, list(value), item=STRING))


def _raw(value: Typed) -> bytes:
    if value.kind == STRING:
        return text(str(value.value))
    if value.kind != ARRAY:
        return struct.pack("<" + _LAYOUTS[value.kind], value.value)
    assert isinstance(value.value, list)
    items = [item if isinstance(item, Typed) else Typed(value.item, item) for item in value.value]
    return struct.pack("<IQ", value.item, len(items)) + b"".join(_raw(item) for item in items)
