"""Rerank endpoints with a fake engine, whose score of an input is the number of its tokens by the vector's length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from corral_server.runner.llama.vocabulary import SpecialTokens
from tests.support.fake_engine import BOS, FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving
from tests.support.waiting import until

RANKS = replace(METADATA, capabilities=("embedding", "rerank"))
SPECIAL = SpecialTokens(bos=1, eos=-1, sep=2, adds_bos=True, adds_eos=True, adds_sep=True)
BODY: dict[str, object] = {"model": "tiny", "query": "q", "documents": ["bbb", "a", "cc"]}


@pytest.fixture(scope="module")
def shared_engine() -> FakeEngine:
    return FakeEngine(script=(), context_length=12, special_tokens=SPECIAL)


@pytest.fixture(scope="module")
def runner(shared_engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(shared_engine, metadata=RANKS) as runner:
        yield runner


@pytest.fixture(autouse=True)
def engine(shared_engine: FakeEngine) -> FakeEngine:
    shared_engine.embedded.clear()
    shared_engine.rerank_template = ""
    return shared_engine


def score(tokens: list[int]) -> object:
    """Return the fake engine's score of an input, rounded as in a response."""
    numbers = (len(tokens), tokens[0], tokens[-1], 1)
    return pytest.approx(len(tokens) / math.hypot(*numbers), rel=1e-6)


def read(document: str) -> list[int]:
    """Return the input of the query ``q`` with the document."""
    return [1, *b"q", 2, 2, *document.encode(), 2]


def test_results_are_sorted_by_score_with_the_usage_last(runner: ServedRunner) -> None:
    response = runner.post("/v1/rerank", BODY)
    assert response.json() == {
        "model": "tiny",
        "object": "list",
        "results": [
            {"index": 0, "relevance_score": score(read("bbb"))},
            {"index": 2, "relevance_score": score(read("cc"))},
            {"index": 1, "relevance_score": score(read("a"))},
        ],
        "usage": {"prompt_tokens": 21, "total_tokens": 21},
    }
    assert list(response.json())[-1] == "usage"
    assert response.headers["corral-prompt-tokens"] == "21"


@pytest.mark.parametrize("path", ["/v2/rerank", "/v1/reranking", "/rerank", "/reranking"])
def test_every_path_has_the_same_answer(runner: ServedRunner, path: str) -> None:
    assert runner.post(path, BODY).json() == runner.post("/v1/rerank", BODY).json()


def test_top_n_and_return_documents(runner: ServedRunner) -> None:
    body = BODY | {"documents": [{"text": "a"}, "bbb"], "top_n": 1, "return_documents": True}
    (result,) = runner.post("/v1/rerank", body).json()["results"]
    assert result == {"index": 1, "relevance_score": score(read("bbb")), "document": {"text": "bbb"}}


def test_texts_give_the_array_of_text_embeddings_inference(runner: ServedRunner) -> None:
    body = {"query": "q", "texts": ["a", "bb"], "return_text": True}
    assert runner.post("/rerank", body).json() == [
        {"index": 1, "score": score(read("bb")), "text": "bb"},
        {"index": 0, "score": score(read("a")), "text": "a"},
    ]


def test_the_models_template_is_filled_in_one_pass(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.rerank_template = "<s>{query}{document}"
    runner.post("/v1/rerank", BODY | {"query": "{document}", "documents": ["a"]})
    assert engine.embedded == [(BOS, *b"{document}a")]


def test_a_long_document_is_cut_to_the_context(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post("/v1/rerank", BODY | {"documents": ["0123456789"]})
    assert engine.embedded == [tuple(read("0123456"))]


def test_a_long_document_is_cut_to_the_context_of_the_template(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.rerank_template = "{query}|{document}."
    runner.post("/v1/rerank", BODY | {"documents": ["0123456789abcdef" * 50]})
    assert engine.detokenize(engine.embedded[-1]) == "q|012345678."


@pytest.mark.parametrize("template", ["", "{query}|{document}."])
def test_a_long_document_without_truncate_is_refused(runner: ServedRunner, engine: FakeEngine, template: str) -> None:
    engine.rerank_template = template
    response = runner.post("/v1/rerank", BODY | {"documents": ["0123456789"], "truncate": False})
    assert (response.status_code, response.json()["error"]["code"]) == (400, 400)
    assert response.json()["error"]["message"] == "the input length exceeds the context length"


@pytest.mark.parametrize("template", ["", "{query}|{document}."])
@pytest.mark.parametrize("size", [11, 12, 5000])
def test_a_query_that_leaves_no_room_is_refused(
    runner: ServedRunner, engine: FakeEngine, size: int, template: str
) -> None:
    engine.rerank_template = template
    response = runner.post("/v1/rerank", BODY | {"query": "q" * size})
    text = "the query leaves no room for a document within the context of 12 tokens"
    assert (response.status_code, response.json()["error"]["message"]) == (400, text)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"query": None}, '"query" must be provided'),
        ({"query": 5}, "json: cannot unmarshal number into Go struct field RerankRequest.query of type string"),
        ({"documents": []}, '"documents" must be a non-empty array of strings, or of objects with a "text"'),
        ({"documents": ["a", 5]}, '"documents" must be a non-empty array of strings, or of objects with a "text"'),
        ({"documents": [{}]}, '"documents" must be a non-empty array of strings, or of objects with a "text"'),
        ({"top_n": 0}, '"top_n" must be at least 1'),
        ({"model": "a//b::c"}, "invalid model name"),
    ],
)
def test_refusals(runner: ServedRunner, field: dict[str, object], text: str) -> None:
    response = runner.post("/v1/rerank", BODY | field)
    assert response.status_code == 400
    assert response.json() == {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": 400}}


def test_a_model_that_is_no_reranker_is_refused(engine: FakeEngine) -> None:
    with serving(engine, metadata=replace(METADATA, capabilities=("embedding",))) as runner:
        response = runner.post("/rerank", BODY)
    assert (response.status_code, response.json()["error"]["type"]) == (501, "not_supported_error")
    assert response.json()["error"]["message"].startswith('"tiny" does not support reranking')


def test_many_documents_are_refused_when_their_inputs_exceed_the_memory_for_requests(
    runner: ServedRunner, engine: FakeEngine
) -> None:
    memory = runner.state.request_memory
    total, memory.total = memory.total, 1 << 20
    try:
        response = runner.post("/v1/rerank", BODY | {"documents": ["0123456"] * 2000})
    finally:
        memory.total = total
    assert response.status_code == 413
    assert engine.embedded == []
    until(lambda: memory.used == 0)
