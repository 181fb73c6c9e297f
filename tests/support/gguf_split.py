"""Splits a GGUF file into parts, as llama.cpp's ``llama-gguf-split`` does."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from corral_core.weights.ggml_types import TENSOR_TYPES
from corral_core.weights.gguf import DEFAULT_ALIGNMENT, TensorInfo, read_header
from tests.support.gguf_files import I32, U16, encode_string

_TYPE_NUMBERS = {kind.name: number for number, kind in TENSOR_TYPES.items()}


def split_gguf(path: Path, folder: Path, *, parts: int, name: str = "model") -> list[Path]:
    """Write ``name-00001-of-0000N.gguf`` and the other parts; the tensors are spread evenly, in their order."""
    header = read_header(path)
    tensors = sorted(header.tensors, key=lambda tensor: tensor.offset)
    share = -(-len(tensors) // parts)
    written = []
    with path.open("rb") as file:
        head = file.read(header.data_offset)
        values = head[24 : head.index(_info(header.tensors[0], header.tensors[0].offset))]
        for index in range(parts):
            own = tensors[index * share : (index + 1) * share]
            keys = (values, len(header.values)) if index == 0 else (b"", 0)
            start = _head(keys, own, split=(index, parts, len(tensors)))
            written.append(folder / f"{name}-{index + 1:05}-of-{parts:05}.gguf")
            with written[-1].open("wb") as part:
                part.write(start)
                for tensor in own:
                    file.seek(header.data_offset + tensor.offset)
                    part.write(file.read(tensor.size) + bytes(-tensor.size % DEFAULT_ALIGNMENT))
    return written


def _head(keys: tuple[bytes, int], tensors: Sequence[TensorInfo], *, split: tuple[int, int, int]) -> bytes:
    infos, offset = b"", 0
    for tensor in tensors:
        infos += _info(tensor, offset)
        offset += -(-tensor.size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    number, count, total = split
    own = b"".join(
        (
            encode_string("split.no") + struct.pack("<IH", U16, number),
            encode_string("split.count") + struct.pack("<IH", U16, count),
            encode_string("split.tensors.count") + struct.pack("<Ii", I32, total),
        )
    )
    start = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), keys[1] + 3) + keys[0] + own + infos
    return start + bytes(-len(start) % DEFAULT_ALIGNMENT)


def _info(tensor: TensorInfo, offset: int) -> bytes:
    shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return encode_string(tensor.name) + shape + struct.pack("<IQ", _TYPE_NUMBERS[tensor.type], offset)
