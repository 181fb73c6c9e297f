"""Scores of rerankers, compared with llama.cpp alone: an encoder with a classification head, and Qwen3's form."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral_server.runner.api.llama_server.rerank_prompt import rerank_inputs
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.embedding import EmbeddingOptions
from corral_server.runner.engine.engine import LlamaEngine
from tests.support import minilm, rerankers
from tests.support.runner_process import RunnerProcess, runner_environment, runner_process

pytestmark = pytest.mark.process

QUERY = "Where does the fox jump?"
DOCUMENTS = ("The quick brown fox jumps over the lazy dog.", "", "Rates rose.", "word " * 2000)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minilm.write_gguf(tmp_path_factory.mktemp("minilm") / "minilm.gguf", pooling=minilm.RANK)


@pytest.fixture(scope="module")
def runner(encoder: Path) -> Iterator[RunnerProcess]:
    with runner_process(runner_environment(encoder.as_uri())) as runner:
        yield runner.wait_ready()


def pair(document: str) -> list[int]:
    """Return llama.cpp's input of the query with a document, by the reference's own tokenizer."""
    cls, *query, sep = minilm.tokenize(QUERY)
    return [cls, *query, sep, *minilm.tokenize(document)[1:-1]]


def test_scores_of_an_encoder_are_those_of_llama_cpp_alone(runner: RunnerProcess, encoder: Path) -> None:
    inputs = [pair(document)[: minilm.CONTEXT] for document in DOCUMENTS]
    expected = dict(enumerate(rerankers.scores_alone(encoder, inputs)))
    with runner.client() as client:
        body = client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS}).json()
    scores = {result["index"]: result["relevance_score"] for result in body["results"]}
    assert scores == pytest.approx(expected, abs=2e-3)
    assert [result["index"] for result in body["results"]] == sorted(expected, key=lambda at: -expected[at])
    assert body["usage"]["prompt_tokens"] == sum(map(len, inputs))


def test_a_reranker_has_the_capability(runner: RunnerProcess) -> None:
    with runner.client() as client:
        assert client.post("/api/show", json={"model": "x"}).json()["capabilities"] == ["embedding", "rerank"]


def test_scores_by_a_template_are_those_of_llama_cpp_alone(tmp_path: Path) -> None:
    path = rerankers.write_qwen3(tmp_path / "qwen3.gguf")
    engine = LlamaEngine.load(path, EngineOptions(threads=1, embedding=EmbeddingOptions(embedding_only=True)))
    try:
        inputs = rerank_inputs(engine, QUERY, DOCUMENTS, truncate=True, reserve=lambda size: None)
        text = rerankers.TEMPLATE.replace("{query}", QUERY).replace("{document}", DOCUMENTS[0])
        assert inputs[0] == engine.tokenize(text, add_special=False, parse_special=True)
        assert inputs[0][-1] == inputs[-1][-1] == 258
        vectors = asyncio.run(engine.embed(inputs))
    finally:
        engine.close()
    assert len(inputs[-1]) == rerankers.CONTEXT
    scores = [vector[0] for vector in vectors]
    assert scores == pytest.approx(rerankers.scores_alone(path, inputs), abs=1e-4)
    assert len(set(scores)) == len(DOCUMENTS)
    assert all(sum(vector) == pytest.approx(1, abs=1e-5) for vector in vectors)
