"""Paths of llama.cpp's server: the Model of a request without a name, and the format of errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral_server.gateway.http_server.error_response import encode_error
from corral_server.wire.errors import LLAMA_SERVER_PATHS, stream_error
from tests.gateway.test_keys import ALICE, bearer, key_file
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, entry, gateway_with_upstream, running_gateway

NEEDS_A_NAME = "model is required, because not exactly one model is served here"


async def test_a_request_without_a_name_is_for_the_only_model() -> None:
    paths = sorted(LLAMA_SERVER_PATHS)
    async with gateway_with_upstream() as (upstream, gateway):
        answers = [await gateway.http.post(path, json={"content": "x"}) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    assert [call.path for call in upstream.calls] == paths
    assert {call.headers["corral-model-name"] for call in upstream.calls} == {"tiny:latest"}
    assert {call.body for call in upstream.calls} == {b'{"content":"x"}'}


@pytest.mark.parametrize("names", [(), ("tiny", "other")])
async def test_without_exactly_one_model_a_name_is_required(names: tuple[str, ...]) -> None:
    async with running_gateway(MemoryDirectory.of(*(entry(name, 1) for name in names))) as gateway:
        answer = await gateway.http.post("/infill", json={"input_prefix": "x"})
    error = {"message": NEEDS_A_NAME, "type": "invalid_request_error", "param": None, "code": 400}
    assert (answer.status_code, answer.json()) == (400, {"error": error})


async def test_the_only_model_is_the_one_that_the_clients_key_allows(tmp_path: Path) -> None:
    keys = key_file(tmp_path, alice={"models": ["tiny*"]})
    async with (
        fake_upstream() as upstream,
        running_gateway(MemoryDirectory.of(entry("tiny", upstream.port), entry("other", 1)), keys_file=keys) as gateway,
    ):
        answer = await gateway.http.post("/tokenize", json={}, headers=bearer(ALICE))
    assert answer.status_code == 200
    assert upstream.calls[0].headers["corral-model-name"] == "tiny:latest"


async def test_other_apis_require_a_name() -> None:
    async with gateway_with_upstream() as (upstream, gateway):
        answer = await gateway.http.post("/v1/messages/count_tokens", json={"messages": [{}]})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "model is required")
    assert answer.json()["type"] == "error"
    assert upstream.calls == []


async def test_an_unknown_model_has_the_format_of_llama_cpps_server() -> None:
    async with gateway_with_upstream() as (_, gateway):
        answer = await gateway.http.post("/v1/rerank", json={"model": "nope"})
    error = {"message": "model 'nope' not found", "type": "not_found_error", "param": None, "code": 404}
    assert (answer.status_code, answer.json()) == (404, {"error": error})


def test_an_error_in_a_stream_is_an_event() -> None:
    data = stream_error("/infill", "no")
    assert data.startswith(b'data: {"error"')
    assert data.endswith(b"\n\n")


def test_an_error_of_the_http_server_has_the_format_of_the_path() -> None:
    _, _, body = encode_error(400, "no", target=b"/infill", prefix="").partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["code"] == 400
