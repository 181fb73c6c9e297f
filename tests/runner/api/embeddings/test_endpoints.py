"""Embedding endpoints with a fake engine: responses, truncation, errors, active requests."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from corral_server.runner.llama.errors import EngineFailed
from tests.support.fake_engine import BOS, FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, runner_state, serving, serving_state
from tests.support.waiting import auntil

EMBED, EMBEDDINGS, OPENAI = "/api/embed", "/api/embeddings", "/v1/embeddings"
EMBEDS = replace(METADATA, capabilities=("embedding",))
REFUSED = "This server does not support embeddings. Start it with `--embeddings`"


@pytest.fixture(scope="module")
def shared_engine() -> FakeEngine:
    return FakeEngine(script=(), context_length=8)


@pytest.fixture(scope="module")
def runner(shared_engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(shared_engine, metadata=EMBEDS) as runner:
        yield runner


@pytest.fixture(autouse=True)
def engine(shared_engine: FakeEngine) -> FakeEngine:
    shared_engine.embedded.clear()
    return shared_engine


def vector_of(text: str) -> list[float]:
    """Return the fake engine's vector of the text with a BOS token."""
    tokens = [BOS, *text.encode()]
    numbers = [len(tokens), tokens[0], tokens[-1], 1]
    return [number / math.hypot(*numbers) for number in numbers]


def test_embed_returns_one_vector_per_input_in_order(runner: ServedRunner) -> None:
    response = runner.post(EMBED, {"model": "Tiny", "input": ["a", "bc"]})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body = response.json()
    assert list(body) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
    assert body["model"] == "Tiny"
    assert body["embeddings"] == [pytest.approx(vector_of("a")), pytest.approx(vector_of("bc"))]
    assert body["prompt_eval_count"] == 5
    assert body["total_duration"] > body["load_duration"] > 0


def test_embed_accepts_a_single_string(runner: ServedRunner) -> None:
    assert runner.post(EMBED, {"model": "tiny", "input": "a"}).json()["embeddings"] == [pytest.approx(vector_of("a"))]


@pytest.mark.parametrize("given", [{}, {"input": None}, {"input": ""}, {"input": []}])
def test_embed_without_input_only_loads_the_model(runner: ServedRunner, given: dict[str, object]) -> None:
    assert runner.post(EMBED, {"model": "tiny", **given}).json() == {"model": "tiny", "embeddings": []}


def test_numbers_restore_the_32_bit_floats(runner: ServedRunner) -> None:
    (vector,) = runner.post(EMBED, {"model": "tiny", "input": "abc"}).json()["embeddings"]
    (packed,) = (item["embedding"] for item in openai(runner, {"input": "abc", "encoding_format": "base64"})["data"])
    assert struct.pack("<4f", *vector) == base64.b64decode(packed)


@pytest.mark.parametrize("path", [EMBED, OPENAI])
def test_dimensions_cuts_vectors_and_normalizes_them_again(runner: ServedRunner, path: str) -> None:
    body = runner.post(path, {"model": "tiny", "input": "abc", "dimensions": 2}).json()
    vector = body["embeddings"][0] if path == EMBED else body["data"][0]["embedding"]
    whole = vector_of("abc")
    assert vector == pytest.approx([number / math.hypot(*whole[:2]) for number in whole[:2]])


@pytest.mark.parametrize("dimensions", [0, 4, 5, -1])
def test_dimensions_beyond_the_models_has_no_effect(runner: ServedRunner, dimensions: int) -> None:
    body = runner.post(EMBED, {"model": "tiny", "input": "abc", "dimensions": dimensions}).json()
    assert body["embeddings"] == [pytest.approx(vector_of("abc"))]


def test_a_long_input_is_truncated_to_the_context(runner: ServedRunner, engine: FakeEngine) -> None:
    body = runner.post(EMBED, {"model": "tiny", "input": ["abcdefghijkl", "abcdefg"]}).json()
    assert engine.embedded == [(BOS, *b"abcdefg"), (BOS, *b"abcdefg")]
    assert body["prompt_eval_count"] == 16


def test_num_ctx_lowers_the_limit_of_an_input(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(EMBED, {"model": "tiny", "input": "abcdefghijkl", "options": {"num_ctx": 4}})
    assert engine.embedded == [(BOS, *b"abc")]


def test_a_long_input_without_truncate_is_refused(runner: ServedRunner) -> None:
    response = runner.post(EMBED, {"model": "tiny", "input": "abcdefghijkl", "truncate": False})
    assert (response.status_code, response.json()) == (400, {"error": "the input length exceeds the context length"})


def test_an_input_that_truncation_empties_is_refused(runner: ServedRunner) -> None:
    response = runner.post(EMBED, {"model": "tiny", "input": "abc", "options": {"num_ctx": 1}})
    error = "input after truncation exceeds maximum context length"
    assert (response.status_code, response.json()) == (400, {"error": error})


def test_the_legacy_endpoint_returns_one_vector(runner: ServedRunner) -> None:
    body = runner.post(EMBEDDINGS, {"model": "tiny", "prompt": "abc"}).json()
    assert body == {"embedding": pytest.approx(vector_of("abc"))}


def test_the_legacy_endpoint_without_prompt_only_loads_the_model(runner: ServedRunner) -> None:
    assert runner.post(EMBEDDINGS, {"model": "tiny"}).json() == {"embedding": []}


def openai(runner: ServedRunner, body: dict[str, object]) -> dict[str, list[dict[str, str]]]:
    answer: dict[str, list[dict[str, str]]] = runner.post(OPENAI, {"model": "tiny", **body}).json()
    return answer


def test_openai_returns_a_list_with_usage(runner: ServedRunner) -> None:
    assert openai(runner, {"input": ["a", ""]}) == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": pytest.approx(vector_of("a")), "index": 0},
            {"object": "embedding", "embedding": pytest.approx(vector_of("")), "index": 1},
        ],
        "model": "tiny",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


def test_openai_embeds_an_empty_string(runner: ServedRunner) -> None:
    assert len(openai(runner, {"input": ""})["data"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (EMBED, {"input": "a"}, 404, "model '' not found"),
        (EMBED, {"model": "tiny", "input": 5}, 400, "invalid input type"),
        (EMBED, {"model": "tiny", "input": {}}, 400, "invalid input type"),
        (EMBED, {"model": "tiny", "input": ["a", 5]}, 400, "invalid input type"),
        (EMBED, {"model": "a b", "input": "a"}, 400, "invalid model name"),
        (EMBED, {"model": "tiny", "keep_alive": "10"}, 400, 'time: missing unit in duration "10"'),
        (EMBED, {"model": "tiny", "options": {"num_ctx": "1"}}, 500, 'option "num_ctx" must be of type integer'),
        (EMBEDDINGS, {"prompt": "a"}, 400, "model is required"),
        (EMBEDDINGS, {"model": "tiny", "options": {"top_k": "1"}}, 500, 'option "top_k" must be of type integer'),
    ],
)
def test_ollama_refusals(runner: ServedRunner, path: str, body: object, status: int, message: str) -> None:
    response = runner.post(path, body)
    assert (response.status_code, response.json()) == (status, {"error": message})


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "tiny"}, 400, "invalid input"),
        ({"model": "tiny", "input": None}, 400, "invalid input"),
        ({"model": "tiny", "input": []}, 400, "invalid input"),
        ({}, 400, "invalid input"),
        ({"input": "a"}, 404, "model '' not found"),
        ({"model": "tiny", "input": [[1, 2]]}, 400, "invalid input type"),
        (
            {"model": "tiny", "input": "a", "encoding_format": "int8"},
            400,
            "Invalid value for 'encoding_format' = int8. Supported values: ['float', 'base64'].",
        ),
    ],
)
def test_openai_refusals(runner: ServedRunner, body: object, status: int, message: str) -> None:
    response = runner.post(OPENAI, body)
    kind = {400: "invalid_request_error", 404: "not_found_error"}[status]
    assert response.status_code == status
    assert response.json() == {"error": {"message": message, "type": kind, "param": None, "code": None}}


@pytest.mark.parametrize(("path", "message"), [(EMBED, "missing request body"), (EMBEDDINGS, "missing request body")])
def test_a_missing_body(runner: ServedRunner, path: str, message: str) -> None:
    assert runner.post(path, raw=b"").json() == {"error": message}
    assert runner.post(OPENAI, raw=b"").json()["error"]["message"] == "EOF"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [(EMBED, {"input": "a"}, 501), (EMBEDDINGS, {"prompt": "a"}, 500), (OPENAI, {"input": "a"}, 501)],
)
def test_a_generating_model_does_not_embed(
    caplog: pytest.LogCaptureFixture, path: str, body: dict[str, object], status: int
) -> None:
    with serving(FakeEngine()) as runner:
        response = runner.post(path, {"model": "tiny", **body})
    assert "set embeddings: true in the spec of Model" in caplog.text
    error = response.json()["error"]
    assert (response.status_code, error["message"] if path == OPENAI else error) == (status, REFUSED)


def test_a_generating_model_embeds_if_its_spec_has_embeddings() -> None:
    with serving(FakeEngine(script=()), spec={"embeddings": True}) as runner:
        assert len(runner.post(EMBED, {"model": "tiny", "input": "a"}).json()["embeddings"]) == 1


def test_an_engine_error_is_reported() -> None:
    with serving(FakeEngine(script=(EngineFailed("no memory"),)), metadata=EMBEDS) as runner:
        response = runner.post(EMBED, {"model": "tiny", "input": "a"})
    assert (response.status_code, response.json()) == (500, {"error": "no memory"})


def test_keep_alive_is_applied(runner: ServedRunner) -> None:
    runner.post(EMBED, {"model": "tiny", "input": "a", "keep_alive": "7m"})
    assert runner.state.keep_alive.seconds == 420
    runner.post(OPENAI, {"model": "tiny", "input": "a"})
    assert runner.state.keep_alive.seconds == 420
    runner.post(EMBEDDINGS, {"model": "tiny", "keep_alive": -1})
    assert runner.state.keep_alive.seconds == math.inf


async def test_a_request_ends_when_its_client_disconnects() -> None:
    gate = threading.Event()
    engine = FakeEngine(script=(gate,))
    with serving(engine, metadata=EMBEDS) as runner:
        async with httpx.AsyncClient(base_url=str(runner.http.base_url), trust_env=False) as client:
            request = asyncio.create_task(client.post(EMBED, json={"model": "tiny", "input": "a"}))
            await auntil(lambda: engine.running == 1)
            assert runner.active() == 1
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        await auntil(lambda: runner.active() == 0 and engine.running == 0)
        gate.set()


@pytest.mark.parametrize("path", [EMBED, EMBEDDINGS, OPENAI])
def test_a_request_while_loading_may_be_retried(path: str) -> None:
    with serving_state(runner_state()) as runner:
        response = runner.post(path, {"model": "tiny", "input": "a", "prompt": "a"})
    assert (response.status_code, response.headers["corral-retry"]) == (503, "loading")


def test_thousands_of_inputs_in_one_request(runner: ServedRunner) -> None:
    body = runner.post(EMBED, {"model": "tiny", "input": ["ab"] * 3000}).json()
    assert len(body["embeddings"]) == 3000
    assert json.dumps(body["embeddings"][0]) == json.dumps(body["embeddings"][-1])
