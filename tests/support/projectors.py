"""Projectors with random weights. What a model sees through one is noise; counts and caches are those of a real one."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import pytest

from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.projector import mtmd
from tests.support.gguf_files import ARRAY, F32, I32, FakeTensor, TypedValue, Value, gguf_bytes
from tests.support.model_pairs import base_values, blocks
from tests.support.ollama_gemma_models import gemma3
from tests.support.random_weights import EMBEDDING, RandomWeights

Kind = Literal["mlp", "gemma3", "qwen2vl_merger"]
PATCH = 16
_DRAWN = 1 << 16
"""Random numbers of a tensor at most; a larger one repeats them."""


@dataclass(frozen=True, slots=True)
class VisionShape:
    """Shape of the encoder. ``side`` are the pixels to which an image is scaled."""

    width: int = 64
    inner: int = 128
    heads: int = 2
    side: int = 64
    blocks: int = 1

    @property
    def rows(self) -> int:
        """Rows of embeddings of an image, and its positions in a prompt."""
        return (self.side // PATCH) ** 2


SMALL = VisionShape()
ROWS = SMALL.rows


def require_mtmd() -> None:
    """Skip the test where llama.cpp was built without its library for images; ``make set-up`` builds it with it."""
    try:
        mtmd()
    except LoadFailed as error:
        pytest.skip(str(error))


class _Weights:
    def __init__(self) -> None:
        self._draw = Random(3)

    def random(self, name: str, *shape: int) -> FakeTensor:
        count = 1
        for size in shape:
            count *= size
        drawn = array("f", (self._draw.gauss(0, 0.05) for _ in range(min(count, _DRAWN))))
        data = (drawn * -(-count // len(drawn)))[:count]
        return FakeTensor(name, shape, data=data.tobytes())

    def linear(self, name: str, inputs: int, outputs: int) -> list[FakeTensor]:
        return [self.random(f"{name}.weight", inputs, outputs), self.random(f"{name}.bias", outputs)]

    def norm(self, name: str, size: int) -> list[FakeTensor]:
        ones, zeros = array("f", [1.0] * size).tobytes(), array("f", [0.0] * size).tobytes()
        return [FakeTensor(f"{name}.weight", (size,), data=ones), FakeTensor(f"{name}.bias", (size,), data=zeros)]


def write_projector(path: Path, *, kind: Kind = "mlp", output: int = 576, shape: VisionShape = SMALL) -> Path:
    """Write a projector for a model of the width ``output``, by default that of SmolLM2-135M.

    ``mlp`` is LLaVA's kind. With ``gemma3`` the rows of an image attend to each other, ``qwen2vl_merger`` has M-RoPE.
    """
    weights, width = _Weights(), shape.width
    first = weights.random("v.patch_embd.weight", PATCH, PATCH, 3, width)
    tensors = [first, *_kind_tensors(weights, kind, output, shape=shape)]
    for block in range(shape.blocks):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensors += weights.linear(f"v.blk.{block}.{name}", width, width)
        tensors += [*weights.norm(f"v.blk.{block}.ln1", width), *weights.norm(f"v.blk.{block}.ln2", width)]
        tensors += weights.linear(f"v.blk.{block}.ffn_up", width, shape.inner)
        tensors += weights.linear(f"v.blk.{block}.ffn_down", shape.inner, width)
    tensors += weights.norm("v.post_ln", width)
    path.write_bytes(gguf_bytes(_metadata(kind, output, shape=shape), tensors))
    return path


def _kind_tensors(weights: _Weights, kind: Kind, output: int, *, shape: VisionShape) -> list[FakeTensor]:
    width = shape.width
    if kind == "qwen2vl_merger":
        second = weights.random("v.patch_embd.weight.1", PATCH, PATCH, 3, width)
        return [second, *weights.linear("mm.0", 4 * width, shape.inner), *weights.linear("mm.2", shape.inner, output)]
    tensors = [
        weights.random("v.patch_embd.bias", width),
        weights.random("v.position_embd.weight", width, (_side(kind, shape) // PATCH) ** 2),
    ]
    if kind == "gemma3":
        tensors.append(weights.random("mm.input_projection.weight", output, width))
        return [*tensors, weights.norm("mm.soft_emb_norm", width)[0]]
    return [*tensors, *weights.linear("mm.0", width, output), *weights.linear("mm.2", output, output)]


def _side(kind: Kind, shape: VisionShape) -> int:
    """Return the pixels of an image's side; Gemma 3 merges four patches into one row."""
    return 2 * shape.side if kind == "gemma3" else shape.side


def _metadata(kind: Kind, output: int, *, shape: VisionShape) -> dict[str, Value]:
    half = TypedValue(ARRAY, [TypedValue(F32, 0.5)] * 3, item=F32)
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": kind,
        "clip.use_gelu": True,
        "clip.vision.embedding_length": shape.width,
        "clip.vision.feed_forward_length": shape.inner,
        "clip.vision.block_count": shape.blocks,
        "clip.vision.projection_dim": output,
        "clip.vision.attention.head_count": shape.heads,
        "clip.vision.image_size": _side(kind, shape),
        "clip.vision.patch_size": PATCH,
        "clip.vision.projector.scale_factor": 2,
        "clip.vision.attention.layer_norm_epsilon": TypedValue(F32, 1e-6),
        "clip.vision.image_mean": half,
        "clip.vision.image_std": half,
    }


def write_vision_pair(folder: Path, kind: Kind) -> tuple[Path, Path]:
    """Write a small text model with random weights and a projector for it; return their paths."""
    weights = RandomWeights()
    if kind == "qwen2vl_merger":
        sections = TypedValue(ARRAY, [TypedValue(I32, size) for size in (2, 3, 3, 0)], item=I32)
        values: dict[str, Value] = base_values("qwen2vl") | {"qwen2vl.rope.dimension_sections": sections}
        layers = blocks(
            lambda block: [
                *weights.attention(block, bias=True),
                *weights.norms(block, "attn_norm", "ffn_norm"),
                *weights.dense(block),
            ]
        )
        tensors = [tensor for tensor in (*weights.outer(), *layers) if not tensor.name.endswith("attn_output.bias")]
    else:
        native, found = gemma3().native
        values, tensors = dict(native), list(found)
    text = folder / "text.gguf"
    text.write_bytes(gguf_bytes(values, tensors))
    return text, write_projector(folder / "mmproj.gguf", kind=kind, output=EMBEDDING)
