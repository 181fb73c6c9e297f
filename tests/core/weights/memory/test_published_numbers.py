"""Memory per GPU beside numbers that others published: llama.cpp's own buffers on real GPUs, in MiB.

The headers have the dimensions and quantization types of the models in the logs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_core.weights.dimensions import dimensions_from_header
from corral_core.weights.gguf import read_header
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory.layer_split import GpuOptions
from corral_core.weights.memory_estimate import MIB, estimate_memory
from tests.support.gguf_files import FakeTensor, Value
from tests.support.real_models import write_sparse

F32, Q4_0, Q8_0, Q4_K, Q6_K = 0, 2, 8, 12, 14


@dataclass(frozen=True, slots=True)
class Published:
    """A model and what ``source`` says of its buffers on the host and each GPU. ``shares`` are the layers of each."""

    source: str
    architecture: str
    layers: int
    width: int
    inner: int
    heads: tuple[int, int]
    vocabulary: int
    types: tuple[int, int, int]
    """Types of the token embeddings, of the layers, and of the output; -1 if that is the token embeddings."""
    shares: tuple[int, ...]
    weights: tuple[float, ...] = ()
    cache: tuple[float, ...] = ()
    context: int = 4096
    mixed: bool = False
    """Some of the layers have values and the end of the feed-forward layer in Q6_K, as ``Q4_K_M`` has."""


MISTRAL_SMALL = Published(
    "https://github.com/LostRuins/koboldcpp/issues/1882: two GPUs",
    "llama", 40, 5120, 32768, (32, 8), 131072, (Q8_0, Q8_0, Q8_0), (21, 20),
    weights=(680.00, 11826.45, 11380.14),
)  # fmt: skip
QWEN3_4B = Published(
    "https://github.com/ollama/ollama/pull/16031: RTX 5090 and 3090",
    "qwen3", 36, 2560, 9728, (32, 8), 151936, (Q6_K, Q4_K, -1), (17, 20),
    weights=(304.28, 974.88, 1401.03), mixed=True,
)  # fmt: skip
MISTRAL_7B = Published(
    "https://github.com/ollama/ollama/issues/6616: A100",
    "llama", 32, 4096, 14336, (32, 8), 32000, (Q4_0, Q4_0, Q6_K), (33,),
    weights=(70.31, 3847.55), cache=(0, 256.00), context=2048,
)  # fmt: skip
COMMAND_R = Published(
    "https://github.com/ggml-org/llama.cpp/pull/6122: RTX 4070 Ti and 3090 Ti",
    "command-r", 40, 8192, 22528, (64, 64), 256000, (Q6_K, Q4_K, -1), (12, 29),
    cache=(0, 1536.00, 3584.00),
)  # fmt: skip


def _tensors(model: Published) -> Iterator[FakeTensor]:
    embeddings, kind, output = model.types
    width, key = model.width, 128 * model.heads[1]
    yield FakeTensor("token_embd.weight", (width, model.vocabulary), embeddings)
    yield FakeTensor("output_norm.weight", (width,))
    if output >= 0:
        yield FakeTensor("output.weight", (width, model.vocabulary), output)
    eighth = model.layers // 8
    for layer in range(model.layers):
        more = layer < eighth or layer >= 7 * model.layers // 8 or (layer - eighth) % 3 == 2
        better = Q6_K if model.mixed and more else kind
        query = 128 * model.heads[0]
        shapes = {"attn_q": (width, query), "attn_k": (width, key), "attn_output": (query, width)}
        shapes |= {"ffn_gate": (width, model.inner), "ffn_up": (width, model.inner)}
        yield from (FakeTensor(f"blk.{layer}.{name}.weight", shape, kind) for name, shape in shapes.items())
        yield FakeTensor(f"blk.{layer}.attn_v.weight", (width, key), better)
        yield FakeTensor(f"blk.{layer}.ffn_down.weight", (model.inner, width), better)
        norms = {"attn_norm": width, "ffn_norm": width}
        norms |= {"attn_q_norm": 128, "attn_k_norm": 128} if model.architecture == "qwen3" else {}
        yield from (FakeTensor(f"blk.{layer}.{name}.weight", (size,)) for name, size in norms.items())


def _values(model: Published) -> Mapping[str, Value]:
    numbers: dict[str, Value] = {"block_count": model.layers, "embedding_length": model.width}
    numbers |= {"feed_forward_length": model.inner, "vocab_size": model.vocabulary, "context_length": model.context}
    numbers |= {"attention.head_count": model.heads[0], "attention.head_count_kv": model.heads[1]}
    numbers |= {"attention.key_length": 128, "attention.value_length": 128}
    named = {f"{model.architecture}.{key}": value for key, value in numbers.items()}
    return {"general.architecture": model.architecture, "tokenizer.ggml.model": "none", **named}


@pytest.mark.parametrize(
    "model", [MISTRAL_SMALL, QWEN3_4B, MISTRAL_7B, COMMAND_R], ids=lambda each: each.source.split("/")[-1]
)
def test_weights_and_cache_per_gpu_are_those_of_published_logs(tmp_path: Path, model: Published) -> None:
    header = read_header(write_sparse(tmp_path / "model.gguf", _values(model), _tensors(model)))
    options = GpuOptions(shares=tuple(map(float, model.shares)))
    made = estimate_memory(
        dimensions_from_header(header), LoadConfig(model.context, 1), gpus=len(model.shares), options=options
    )
    for name, published in (("weights", model.weights), ("kv_cache", model.cache)):
        estimated = [getattr(part, name) / MIB for part in (made, *made.gpus)]
        for size, found in zip(published, estimated, strict=False):
            assert size - 0.01 <= found <= size + 1.01, name
