"""LoRA adapters on the small real model: each sequence is decoded with its own adapter."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import AdapterFile, EngineOptions
from corral_server.runner.engine.embedding import EmbeddingOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.errors import EngineFailed, LoadFailed
from corral_server.runner.sampling.text import TextChunk
from tests.runner.engines import GREEDY, answer, answers, chat, weights, words
from tests.support.lora import write_lora

pytestmark = pytest.mark.process

NAMES = ("", "one", "two")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("one", "two")):
        write_lora(folder / f"{name}.gguf", seed=seed)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LlamaEngine]:
    adapters = {name: AdapterFile(folder / f"{name}.gguf") for name in ("one", "two")}
    adapters["none of it"] = AdapterFile(folder / "one.gguf", 0.0)
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=4, threads=1, adapters=adapters))
    yield engine
    engine.close()


def task(
    engine: LlamaEngine, adapter: str, *, text: str = "What is the capital of France?", tokens: int = 12
) -> GenerationTask:
    return GenerationTask(chat(engine, text), GREEDY, max_tokens=tokens, adapter=adapter)


def test_each_adapter_changes_the_answer(engine: LlamaEngine) -> None:
    texts = {name: answer(engine, task(engine, name)).text for name in NAMES}
    assert "Paris" in texts[""]
    assert len(set(texts.values())) == 3


def test_an_adapter_of_scale_zero_changes_nothing(engine: LlamaEngine) -> None:
    assert answer(engine, task(engine, "none of it")).text == answer(engine, task(engine, "")).text


def test_concurrent_adapters_have_the_answers_of_lone_ones(engine: LlamaEngine) -> None:
    alone = [answer(engine, task(engine, name, tokens=24)).result.tokens for name in NAMES]
    together = answers(engine, *(task(engine, name, tokens=24) for name in NAMES))
    assert [found.result.tokens for found in together] == alone


def test_a_prefix_is_reused_with_its_own_adapter_only(folder: Path) -> None:
    adapters = {name: AdapterFile(folder / f"{name}.gguf") for name in ("one", "two")}
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=2, threads=1, adapters=adapters))
    try:
        cached = [answer(engine, task(engine, name)).result.cached_tokens for name in ("one", "two", "one", "", "two")]
    finally:
        engine.close()
    assert cached[0] == cached[1] == cached[3] == 0
    assert cached[2] > 0


def test_more_adapters_than_slots_take_turns(engine: LlamaEngine) -> None:
    tasks = [task(engine, NAMES[number % 3], text=f"Say {number}.") for number in range(9)]
    alone = [answer(engine, one).result.tokens for one in tasks]
    assert [found.result.tokens for found in answers(engine, *tasks)] == alone


async def test_streams_of_two_adapters_alternate(engine: LlamaEngine) -> None:
    order: list[str] = []

    async def read(name: str) -> None:
        async with aclosing(engine.generate(task(engine, name, text="Tell me a long story.", tokens=60))) as items:
            async for item in items:
                if isinstance(item, TextChunk):
                    order.append(name)  # noqa: PERF401

    await asyncio.gather(read("one"), read("two"))
    changes = sum(left != right for left, right in itertools.pairwise(order))
    assert changes >= 3, "one stream waited for the end of the other"


def test_an_unknown_adapter_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(EngineFailed, match="there is no adapter 'three'"):
        answer(engine, task(engine, "three"))


@pytest.mark.parametrize("what", ["another width", "no adapter", "nothing"])
def test_the_error_for_an_invalid_adapter_names_its_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "adapter.gguf"
    if what == "another width":
        write_lora(path, seed=1, width=64)
    elif what == "no adapter":
        path.write_bytes(b"not a GGUF at all")
    with pytest.raises(LoadFailed, match=f"the adapter {path} cannot be loaded"):
        LlamaEngine.load(weights(), EngineOptions(context_length=64, slots=1, adapters={"a": AdapterFile(path)}))


def test_the_size_includes_the_adapters(engine: LlamaEngine) -> None:
    plain = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=4, threads=1))
    try:
        assert engine.size_bytes > plain.size_bytes
    finally:
        plain.close()


async def test_embeddings_use_the_requested_adapter(folder: Path) -> None:
    options = EngineOptions(
        context_length=64,
        slots=2,
        threads=1,
        adapters={name: AdapterFile(folder / f"{name}.gguf") for name in NAMES[1:]},
        embedding=EmbeddingOptions(pooling=3, chunked=True),
    )
    engine = LlamaEngine.load(weights(), options)
    inputs = [words(engine, count) for count in (3, 20, 9)]
    try:
        alone = {name: await engine.embed(inputs, name) for name in NAMES}
        together = await asyncio.gather(*(engine.embed(inputs, name) for name in (*alone, *alone)))
        with pytest.raises(EngineFailed, match="no adapter 'other'"):
            await engine.embed(inputs, "other")
    finally:
        engine.close()
    assert len({vectors[0].tobytes() for vectors in alone.values()}) == 3
    for vectors, name in zip(together, (*alone, *alone), strict=True):
        for vector, expected in zip(vectors, alone[name], strict=True):
            assert vector.tolist() == pytest.approx(expected.tolist(), abs=0.02)
