"""A small model in llama.cpp's format and in that of Ollama's converter, and the parts of such pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.gguf_files import FakeTensor, Value, gguf_bytes
from tests.support.random_weights import (
    EMBEDDING,
    HEADS,
    INNER,
    KV_HEADS,
    LAYERS,
)
from tests.support.tiny_model import tokenizer_values

Values = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Pair:
    """One model in both formats; a format is its keys and its tensors."""

    native: tuple[Mapping[str, Value], Sequence[FakeTensor]]
    ollama: tuple[Mapping[str, Value], Sequence[FakeTensor]]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Return the file for llama.cpp and the one for Ollama."""
        paths = folder / "native.gguf", folder / "ollama.gguf"
        for path, (values, tensors) in zip(paths, (self.native, self.ollama), strict=True):
            path.write_bytes(gguf_bytes(values, tensors))
        return paths


def base_values(architecture: str, **keys: Value) -> Values:
    numbers: Values = {
        "block_count": LAYERS,
        "context_length": 512,
        "embedding_length": EMBEDDING,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 10_000.0,
    }
    own = {f"{architecture}.{key}": value for key, value in (numbers | keys).items()}
    return {"general.architecture": architecture, **own, **tokenizer_values()}


def renamed(values: Mapping[str, Value], architecture: str) -> Values:
    before = str(values["general.architecture"])
    own = {key.replace(f"{before}.", f"{architecture}.", 1): value for key, value in values.items()}
    return {**own, "general.architecture": architecture}


def without(values: Mapping[str, Value], *keys: str) -> Values:
    return {key: value for key, value in values.items() if key not in keys}


def tensors_renamed(tensors: Sequence[FakeTensor], names: Mapping[str, str]) -> list[FakeTensor]:
    renamed = []
    for tensor in tensors:
        name = tensor.name
        for part, new_part in names.items():
            name = name.replace(part, new_part)
        renamed.append(replace(tensor, name=name))
    return renamed


def blocks(layer: Callable[[str], list[FakeTensor]]) -> list[FakeTensor]:
    return [tensor for number in range(LAYERS) for tensor in layer(f"blk.{number}.")]
