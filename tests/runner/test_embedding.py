"""Embeddings of the engine: an encoder-only model beside a reference in numpy, and a model that generates as well."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from corral_core.load import POOLING_LAST as LAST
from corral_server.runner.embedding import EmbeddingOptions, Vector
from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import EngineFailed, InvalidPrompt, PromptTooLong, Task
from tests.runner.engines import GREEDY, answer, chat, weights, words
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
BESIDE = EmbeddingOptions(pooling=LAST, pieces=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    path = minilm.write_gguf(tmp_path_factory.mktemp("minilm") / "minilm.gguf")
    engine = LlamaEngine.load(path, EngineOptions(threads=1, embedding=EmbeddingOptions(only=True)))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def decoder() -> Iterator[LlamaEngine]:
    options = EngineOptions(context_length=256, slots=2, batch=128, threads=1, embedding=BESIDE)
    engine = LlamaEngine.load(weights(), options)
    yield engine
    engine.close()


def tokens(engine: LlamaEngine, text: str) -> list[int]:
    return engine.tokenize(text, add_special=True, parse_special=False)


def embed(engine: LlamaEngine, *inputs: Sequence[int]) -> list[Vector]:
    return asyncio.run(engine.embed(inputs))


def likeness(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    return float(np.asarray(left, np.float32) @ np.asarray(right, np.float32))


def test_the_tokens_of_an_encoder_are_those_of_its_own_tokenizer(encoder: LlamaEngine) -> None:
    for text in TEXTS:
        assert tokens(encoder, text) == minilm.tokens_of(text)


def test_vectors_of_an_encoder_are_those_of_the_reference(encoder: LlamaEngine) -> None:
    vectors = embed(encoder, *(tokens(encoder, text) for text in TEXTS))
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert len(vector) == minilm.WIDTH
        assert likeness(vector, minilm.reference(text)) > 0.9999


def test_vectors_have_the_length_one(encoder: LlamaEngine) -> None:
    (vector,) = embed(encoder, tokens(encoder, "hello"))
    assert math.isclose(likeness(vector, vector), 1, abs_tol=1e-5)


def test_texts_of_one_meaning_are_nearer_than_others(encoder: LlamaEngine) -> None:
    cat, kitten, bank = embed(
        encoder,
        *(tokens(encoder, text) for text in ("A cat sits on the mat.", "A kitten is sitting on a rug.", "Rates rose.")),
    )
    assert likeness(cat, kitten) > likeness(cat, bank) + 0.3


def test_many_requests_at_once_get_what_each_would_get_alone(encoder: LlamaEngine) -> None:
    texts = [f"number {number} of the texts " * (1 + number % 30) for number in range(150)]

    async def everything() -> list[list[Vector]]:
        groups = [[tokens(encoder, text) for text in texts[start : start + 15]] for start in range(0, 150, 15)]
        return list(await asyncio.gather(*(encoder.embed(group) for group in groups)))

    together = [vector for group in asyncio.run(everything()) for vector in group]
    for index in (0, 29, 77, 149):
        (alone,) = embed(encoder, tokens(encoder, texts[index]))
        assert likeness(alone, together[index]) > 0.9999


def test_an_input_as_long_as_the_context_is_taken_and_a_longer_one_is_refused(encoder: LlamaEngine) -> None:
    longest = [101, *([7592] * (encoder.context_length - 2)), 102]
    assert likeness(embed(encoder, longest)[0], embed(encoder, longest)[0]) > 0.9999
    with pytest.raises(PromptTooLong, match="the input length exceeds the context length"):
        embed(encoder, [*longest, 102])


@pytest.mark.parametrize("bad", [[], [10**7], [-1]])
def test_an_input_that_is_no_text_of_the_vocabulary_is_refused(encoder: LlamaEngine, bad: list[int]) -> None:
    with pytest.raises(InvalidPrompt):
        embed(encoder, bad)


def test_an_encoder_refuses_to_generate(encoder: LlamaEngine) -> None:
    with pytest.raises(EngineFailed, match="embeddings only"):
        answer(encoder, Task((101, 7592, 102), GREEDY, max_tokens=1))


@pytest.mark.parametrize("pooling", [2, 3, minilm.RANK])
def test_other_poolings_are_those_of_the_reference(tmp_path: Path, pooling: int) -> None:
    path = minilm.write_gguf(tmp_path / "minilm.gguf", pooling=pooling)
    engine = LlamaEngine.load(path, EngineOptions(threads=1, embedding=EmbeddingOptions(only=True)))
    try:
        vectors = embed(engine, *(tokens(engine, text) for text in TEXTS[:3]))
    finally:
        engine.close()
    for text, vector in zip(TEXTS[:3], vectors, strict=True):
        state = minilm.hidden(minilm.tokens_of(text))[-1 if pooling == LAST else 0]
        if pooling == minilm.RANK:
            assert list(vector) == [pytest.approx(float(minilm.ranking() @ state), abs=0.02)]
        else:
            assert likeness(vector, state / np.linalg.norm(state)) > 0.9999


def test_a_request_of_one_input_does_not_wait_for_one_of_many(encoder: LlamaEngine) -> None:
    async def run() -> bool:
        many = asyncio.create_task(encoder.embed([tokens(encoder, "word " * 400)] * 12))
        await asyncio.sleep(0)
        await encoder.embed([tokens(encoder, "hello")])
        first = not many.done()
        await many
        return first

    assert asyncio.run(run())


def test_a_cancelled_request_gives_its_inputs_up(encoder: LlamaEngine) -> None:
    async def run() -> None:
        many = asyncio.create_task(encoder.embed([tokens(encoder, "word " * 200)] * 200))
        await asyncio.sleep(0)
        many.cancel()
        await asyncio.gather(many, return_exceptions=True)
        await encoder.embed([tokens(encoder, "hello")])
        await auntil(lambda: encoder.stalled_for == 0, what="the engine's rest")

    asyncio.run(asyncio.wait_for(run(), 10))


def test_an_encoder_takes_no_memory_for_generations(encoder: LlamaEngine) -> None:
    assert encoder.size_bytes < 100 * 2**20


def test_an_input_in_pieces_gives_the_vector_of_the_whole() -> None:
    vectors = []
    for pieces in (True, False):
        embedding = EmbeddingOptions(pooling=LAST, pieces=pieces, only=True)
        engine = LlamaEngine.load(weights(), EngineOptions(context_length=512, threads=1, embedding=embedding))
        try:
            vectors += embed(engine, words(engine, 300))
        finally:
            engine.close()
    assert likeness(*vectors) > 0.999


def test_embeddings_and_generations_run_beside_each_other(decoder: LlamaEngine) -> None:
    task = Task(chat(decoder, "What is the capital of France?"), GREEDY, max_tokens=12)
    alone = answer(decoder, task).text
    vector = embed(decoder, words(decoder, 200))[0]

    async def both() -> tuple[str, list[Vector]]:
        text = ""
        async with aclosing(decoder.generate(task)) as items:
            embedding = asyncio.create_task(decoder.embed([words(decoder, 200)] * 3))
            async for item in items:
                text += getattr(item, "text", "")
            return text, await embedding

    text, vectors = asyncio.run(both())
    assert text == alone
    assert all(likeness(vector, found) > 0.999 for found in vectors)


def test_closing_the_engine_fails_what_waits(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = minilm.write_gguf(tmp_path_factory.mktemp("minilm") / "minilm.gguf")
    engine = LlamaEngine.load(path, EngineOptions(threads=1, embedding=EmbeddingOptions(only=True)))

    async def run() -> None:
        waiting = asyncio.create_task(engine.embed([tokens(engine, "word " * 200)] * 200))
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.close)
        with pytest.raises(EngineFailed, match="unloaded"):
            await waiting

    asyncio.run(run())
