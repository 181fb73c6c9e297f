"""LoRA adapters beside one another on the real small model: each sequence is decoded with its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from corral_server.runner.contexts import AdapterFile
from corral_server.runner.embedding import EmbeddingOptions, Vector
from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import EngineFailed, LoadFailed, Piece, Task
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


def task(engine: LlamaEngine, adapter: str, *, text: str = "What is the capital of France?", tokens: int = 12) -> Task:
    return Task(chat(engine, text), GREEDY, max_tokens=tokens, adapter=adapter)


def test_each_adapter_says_something_else(engine: LlamaEngine) -> None:
    texts = {name: answer(engine, task(engine, name)).text for name in NAMES}
    assert "Paris" in texts[""]
    assert len(set(texts.values())) == 3


def test_an_adapter_of_scale_zero_changes_nothing(engine: LlamaEngine) -> None:
    assert answer(engine, task(engine, "none of it")).text == answer(engine, task(engine, "")).text


def test_adapters_beside_one_another_say_what_each_says_alone(engine: LlamaEngine) -> None:
    alone = [answer(engine, task(engine, name, tokens=24)).finish.generated for name in NAMES]
    together = answers(engine, *(task(engine, name, tokens=24) for name in NAMES))
    assert [found.finish.generated for found in together] == alone


def test_a_prompt_is_reused_with_its_own_adapter_only(folder: Path) -> None:
    adapters = {name: AdapterFile(folder / f"{name}.gguf") for name in ("one", "two")}
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=2, threads=1, adapters=adapters))
    try:
        cached = [answer(engine, task(engine, name)).finish.cached_tokens for name in ("one", "two", "one", "", "two")]
    finally:
        engine.close()
    assert cached[0] == cached[1] == cached[3] == 0
    assert cached[2] > 0


def test_more_adapters_than_slots_take_turns(engine: LlamaEngine) -> None:
    tasks = [task(engine, NAMES[number % 3], text=f"Say {number}.") for number in range(9)]
    alone = [answer(engine, one).finish.generated for one in tasks]
    assert [found.finish.generated for found in answers(engine, *tasks)] == alone


def test_streams_of_two_adapters_flow_side_by_side(engine: LlamaEngine) -> None:
    arrived: list[str] = []
    note = arrived.append

    async def listen(name: str) -> None:
        async with aclosing(engine.generate(task(engine, name, text="Tell me a long story.", tokens=60))) as items:
            async for item in items:
                if isinstance(item, Piece):
                    note(name)

    async def both() -> None:
        await asyncio.gather(listen("one"), listen("two"))

    asyncio.run(both())
    changes = sum(left != right for left, right in itertools.pairwise(arrived))
    assert changes >= 3, "one stream waited for the end of the other"


def test_an_adapter_that_was_not_loaded_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(EngineFailed, match="there is no adapter 'three'"):
        answer(engine, task(engine, "three"))


@pytest.mark.parametrize("what", ["another width", "no adapter", "nothing"])
def test_an_adapter_that_does_not_fit_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "adapter.gguf"
    if what == "another width":
        write_lora(path, seed=1, width=64)
    elif what == "no adapter":
        path.write_bytes(b"not a GGUF at all")
    with pytest.raises(LoadFailed, match=f"the adapter {path} cannot be loaded"):
        LlamaEngine.load(weights(), EngineOptions(context_length=64, slots=1, adapters={"a": AdapterFile(path)}))


def test_the_memory_of_adapters_counts(engine: LlamaEngine) -> None:
    plain = LlamaEngine.load(weights(), EngineOptions(context_length=256, slots=4, threads=1))
    try:
        assert engine.size_bytes > plain.size_bytes
    finally:
        plain.close()


def test_embeddings_are_read_with_the_adapter_that_is_asked_for(folder: Path) -> None:
    options = EngineOptions(
        context_length=64,
        slots=2,
        threads=1,
        adapters={name: AdapterFile(folder / f"{name}.gguf") for name in NAMES[1:]},
        embedding=EmbeddingOptions(pooling=3, pieces=True),
    )
    engine = LlamaEngine.load(weights(), options)
    inputs = [words(engine, count) for count in (3, 20, 9)]
    try:
        alone = {name: asyncio.run(engine.embed(inputs, name)) for name in NAMES}

        async def all_at_once() -> list[list[Vector]]:
            return list(await asyncio.gather(*(engine.embed(inputs, name) for name in (*alone, *alone))))

        together = asyncio.run(all_at_once())
        with pytest.raises(EngineFailed, match="no adapter 'other'"):
            asyncio.run(engine.embed(inputs, "other"))
    finally:
        engine.close()
    assert len({vectors[0].tobytes() for vectors in alone.values()}) == 3
    for vectors, name in zip(together, (*alone, *alone), strict=True):
        for vector, wanted in zip(vectors, alone[name], strict=True):
            assert vector.tolist() == pytest.approx(wanted.tolist(), abs=0.02)
