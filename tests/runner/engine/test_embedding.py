"""Embeddings of the engine: an encoder compared with a reference in numpy, and a model that generates as well."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from corral_core.weights.load_config import POOLING_LAST as LAST
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.embedding import EmbeddingOptions, Vector
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.errors import EngineFailed, InvalidPrompt, PromptTooLong
from tests.runner.engines import GREEDY, answer, ask, chat, weights, words
from tests.support import minilm
from tests.support.waiting import auntil

pytestmark = pytest.mark.process

TEXTS = (
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "Un café à Zürich",
    "hello",
    "Photosynthesis turns light into chemical energy; " * 40,
    "",
)
CAUSAL = EmbeddingOptions(pooling=LAST, chunked=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    path = minilm.write_gguf(tmp_path_factory.mktemp("minilm") / "minilm.gguf")
    engine = LlamaEngine.load(path, EngineOptions(threads=1, embedding=EmbeddingOptions(embedding_only=True)))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def decoder() -> Iterator[LlamaEngine]:
    options = EngineOptions(context_length=256, slots=2, batch_size=128, threads=1, embedding=CAUSAL)
    engine = LlamaEngine.load(weights(), options)
    yield engine
    engine.close()


def tokens(engine: LlamaEngine, text: str) -> list[int]:
    return engine.tokenize(text, add_special=True, parse_special=False)


def embed(engine: LlamaEngine, *inputs: Sequence[int]) -> list[Vector]:
    return asyncio.run(engine.embed(inputs))


def similarity(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    return float(np.asarray(left, np.float32) @ np.asarray(right, np.float32))


def test_an_encoder_has_the_tokens_of_its_own_tokenizer(encoder: LlamaEngine) -> None:
    for text in TEXTS:
        assert tokens(encoder, text) == minilm.tokenize(text)


def test_an_encoder_has_the_vectors_of_the_reference(encoder: LlamaEngine) -> None:
    vectors = embed(encoder, *(tokens(encoder, text) for text in TEXTS))
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert len(vector) == minilm.WIDTH
        assert similarity(vector, minilm.reference_embedding(text)) > 0.9999


def test_vectors_have_length_one(encoder: LlamaEngine) -> None:
    (vector,) = embed(encoder, tokens(encoder, "hello"))
    assert math.isclose(similarity(vector, vector), 1, abs_tol=1e-5)


def test_texts_with_similar_meaning_have_similar_vectors(encoder: LlamaEngine) -> None:
    cat, kitten, bank = embed(
        encoder,
        *(tokens(encoder, text) for text in ("A cat sits on the mat.", "A kitten is sitting on a rug.", "Rates rose.")),
    )
    assert similarity(cat, kitten) > similarity(cat, bank) + 0.3


async def test_concurrent_requests_get_the_vectors_of_lone_requests(encoder: LlamaEngine) -> None:
    texts = [f"number {number} of the texts " * (1 + number % 30) for number in range(150)]
    groups = [[tokens(encoder, text) for text in texts[start : start + 15]] for start in range(0, 150, 15)]
    together = await asyncio.gather(*(encoder.embed(group) for group in groups))
    vectors = [vector for group in together for vector in group]
    for index in (0, 29, 77, 149):
        (alone,) = await encoder.embed([tokens(encoder, texts[index])])
        assert similarity(alone, vectors[index]) > 0.9999


def test_the_context_length_limits_an_input(encoder: LlamaEngine) -> None:
    longest = [101, *([7592] * (encoder.context_length - 2)), 102]
    assert similarity(embed(encoder, longest)[0], embed(encoder, longest)[0]) > 0.9999
    with pytest.raises(PromptTooLong, match="the input length exceeds the context length"):
        embed(encoder, [*longest, 102])


@pytest.mark.parametrize("bad", [[], [10**7], [-1]])
def test_invalid_tokens_are_refused(encoder: LlamaEngine, bad: list[int]) -> None:
    with pytest.raises(InvalidPrompt):
        embed(encoder, bad)


def test_an_encoder_refuses_to_generate(encoder: LlamaEngine) -> None:
    with pytest.raises(EngineFailed, match="embeddings only"):
        answer(encoder, GenerationTask((101, 7592, 102), GREEDY, max_tokens=1))


@pytest.mark.parametrize("pooling", [2, 3, minilm.RANK])
def test_other_poolings_have_the_vectors_of_the_reference(tmp_path: Path, pooling: int) -> None:
    path = minilm.write_gguf(tmp_path / "minilm.gguf", pooling=pooling)
    engine = LlamaEngine.load(path, EngineOptions(threads=1, embedding=EmbeddingOptions(embedding_only=True)))
    try:
        vectors = embed(engine, *(tokens(engine, text) for text in TEXTS[:3]))
    finally:
        engine.close()
    for text, vector in zip(TEXTS[:3], vectors, strict=True):
        state = minilm.last_hidden_state(minilm.tokenize(text))[-1 if pooling == LAST else 0]
        if pooling == minilm.RANK:
            assert list(vector) == [pytest.approx(float(minilm.rerank_weights() @ state), abs=0.02)]
        else:
            assert similarity(vector, state / np.linalg.norm(state)) > 0.9999


async def test_a_request_of_one_input_does_not_wait_for_one_of_many(encoder: LlamaEngine) -> None:
    many = asyncio.create_task(encoder.embed([tokens(encoder, "word " * 400)] * 12))
    await asyncio.sleep(0)
    await encoder.embed([tokens(encoder, "hello")])
    assert not many.done()
    await many


async def test_a_cancelled_request_drops_its_inputs(encoder: LlamaEngine) -> None:
    async with asyncio.timeout(10):
        many = asyncio.create_task(encoder.embed([tokens(encoder, "word " * 200)] * 200))
        await asyncio.sleep(0)
        many.cancel()
        await asyncio.gather(many, return_exceptions=True)
        await encoder.embed([tokens(encoder, "hello")])
        await auntil(lambda: encoder.stalled_for == 0, what="the engine's rest")


def test_an_encoder_allocates_no_memory_for_generations(encoder: LlamaEngine) -> None:
    assert encoder.size_bytes < 100 * 2**20


def test_a_chunked_input_has_the_vector_of_the_whole() -> None:
    vectors = []
    for pieces in (True, False):
        embedding = EmbeddingOptions(pooling=LAST, chunked=pieces, embedding_only=True)
        engine = LlamaEngine.load(weights(), EngineOptions(context_length=512, threads=1, embedding=embedding))
        try:
            vectors += embed(engine, words(engine, 300))
        finally:
            engine.close()
    assert similarity(*vectors) > 0.999


async def test_embeddings_and_generations_run_concurrently(decoder: LlamaEngine) -> None:
    task = GenerationTask(chat(decoder, "What is the capital of France?"), GREEDY, max_tokens=12)
    alone = (await ask(decoder, task)).text
    vector = (await decoder.embed([words(decoder, 200)]))[0]
    text = ""
    async with aclosing(decoder.generate(task)) as items:
        embedding = asyncio.create_task(decoder.embed([words(decoder, 200)] * 3))
        async for item in items:
            text += getattr(item, "text", "")
    assert text == alone
    assert all(similarity(vector, found) > 0.999 for found in await embedding)


async def test_closing_the_engine_fails_waiting_requests(tmp_path: Path) -> None:
    path = minilm.write_gguf(tmp_path / "minilm.gguf")
    engine = LlamaEngine.load(path, EngineOptions(threads=1, embedding=EmbeddingOptions(embedding_only=True)))
    waiting = asyncio.create_task(engine.embed([tokens(engine, "word " * 200)] * 200))
    await asyncio.sleep(0)
    await asyncio.to_thread(engine.close)
    with pytest.raises(EngineFailed, match="unloaded"):
        await waiting


async def test_an_unexpected_error_in_the_embeddings_does_not_end_a_generation(
    decoder: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("broken")

    task = GenerationTask(chat(decoder, "What is the capital of France?"), GREEDY, max_tokens=24)
    generation = asyncio.create_task(ask(decoder, task))
    await auntil(lambda: decoder.running == 1)
    with monkeypatch.context() as patch:
        patch.setattr(decoder._embedder, "_run", broken)
        with pytest.raises(EngineFailed, match="broken"):
            await decoder.embed([words(decoder, 3)])
    assert "Paris" in (await generation).text
    assert len(await decoder.embed([words(decoder, 3)])) == 1
