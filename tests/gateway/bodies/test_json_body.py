"""The model name in request bodies, and the errors for invalid ones."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corral_server.gateway.bodies.json_body import MAX_VALUES, field, parse_body
from corral_server.wire.errors import ApiError
from tests.support.gateway import MemoryDirectory, entry, gateway_with_upstream, running_gateway

DEPTH = 512


def parse(body: bytes) -> object:
    return dict(parse_body(body, kind="ChatRequest", depth_limit=DEPTH, empty="missing request body"))


def refusal(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        field(parse_body(body, kind="ChatRequest", depth_limit=DEPTH, empty="missing"), "model", kind="ChatRequest")
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"a"}', "a"),
        (b' \r\n\t{"model":"a"} {"model":"b"}', "a"),
        (b'{"model":"a"}garbage', "a"),
        (b'{"MODEL":"a","x":{"model":"b"}}', "a"),
        (b'{"model":"a","Model":"b"}', "b"),
        (b'{"Model":"b","model":"a"}', "a"),
        (b'{"model":"a","model":null}', "a"),
        (b'{"model":null,"MODEL":"b"}', "b"),
        (b'{"model":"\\u0061"}', "a"),
        (b'{"model":"\\ud800"}', "\ufffd"),
        (b'{"model":"\xff"}', "\ufffd"),
        (b'{"model":"a","n":1e999,"deep":' + b"[" * 400 + b"]" * 400 + b"}", "a"),
        (b'{"text":"' + b"[{" * 5000 + b'\\"","model":"a"}', "a"),
    ],
)
def test_the_model_is_read_as_gos_decoder_reads_it(body: bytes, model: str) -> None:
    data = parse_body(body, kind="ChatRequest", depth_limit=DEPTH, empty="missing")
    assert field(data, "model", kind="ChatRequest") == model


@pytest.mark.parametrize("body", [b"null", b"{}", b'{"model":null}', b'{"other":1}'])
def test_a_body_without_a_model_has_an_empty_one(body: bytes) -> None:
    assert field(parse_body(body, kind="X", depth_limit=DEPTH, empty=""), "model", kind="X") == ""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "missing"),
        (b" \n ", "missing"),
        (b'{"n":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        (b"true", "json: cannot unmarshal bool into Go value of type api.ChatRequest"),
        (b'{"model":5}', "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
        (b'{"model":{}}', "json: cannot unmarshal object into Go struct field ChatRequest.model of type string"),
        (b'{"model":"a', "unexpected EOF"),
        (b'{"model":"a"', "unexpected EOF"),
        (b"{bad}", "invalid character 'b' looking for beginning of object key string"),
        (b'{"model" 1}', "invalid character '1' after object key"),
        (b"model", "invalid character 'm' looking for beginning of value"),
    ],
)
def test_an_invalid_body_gets_the_error_of_gos_decoder(body: bytes, text: str) -> None:
    assert refusal(body) == text


@pytest.mark.parametrize(
    "body",
    [
        b'{b:1,"model":"a"}',
        b"{'model':'a'}",
        b'{"model":"a",}',
        b'{"model":"a","n":NaN}',
        b'{"model":"a","n":-Infinity}',
        b'{"model":"a\nb"}',
        b'{"model":"a","n":' + b"1" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        '{"model":"a"}'.encode("utf-16"),
        b'{"model":"a","x":' + b"[" * 513 + b"]" * 513 + b"}",
        b'{"x":' * 600 + b"1" + b"}" * 600,
        b"[" * 1_000_000,
        b"[1," * 3_000_000,
        b"\x00",
    ],
)
def test_hostile_bodies_get_a_400(body: bytes) -> None:
    assert refusal(body)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,\\modelMODEL0 null\n', max_size=80).map(str.encode))
@example(b'{"model":"\\')
def test_any_bytes_are_an_object_or_a_400(body: bytes) -> None:
    try:
        status, outcome = 200, parse(body)
    except ApiError as error:
        status, outcome = error.status, {}
    assert status in (200, 400)
    assert isinstance(outcome, dict)


@given(st.dictionaries(st.text(max_size=6), st.none() | st.integers() | st.text(max_size=9) | st.lists(st.none())))
def test_what_python_writes_is_read_back(data: dict[str, object]) -> None:
    body = json.dumps({**data, "model": "a"}).encode()
    assert field(parse_body(body, kind="X", depth_limit=DEPTH, empty=""), "model", kind="X") == "a"


def test_a_large_hostile_body_costs_little() -> None:
    start = time.process_time()
    assert "too many values" in refusal(b"[]," * (MAX_VALUES // 2 + 1))
    assert "too deeply" in refusal(b"[" * 600 + b"[]," * (MAX_VALUES // 3))
    assert "too many values" in refusal(b"[" * 600 + b"]" * (MAX_VALUES + 1))
    for string in (b'"' + b'\\"' * 500_000, b'"\\' * 500_000):  # none of them ends
        assert "too deeply" in refusal(b"[" * 600 + string)
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/generate", b"", 400, "missing request body"),
        ("/api/chat", b"", 400, "missing request body"),
        ("/v1/chat/completions", b"", 400, "EOF"),
        ("/v1/messages", b"", 400, "EOF"),
        ("/api/generate", b"{}", 404, "model '' not found"),
        ("/api/embed", b'{"model":""}', 404, "model '' not found"),
        ("/api/chat", b"{}", 400, "model is required"),
        ("/api/embeddings", b"{}", 400, "model is required"),
        ("/v1/completions", b"{}", 404, "model '' not found"),
        ("/v1/chat/completions", b"{}", 400, "[] is too short - 'messages'"),
        ("/v1/responses", b"{}", 400, "model is required"),
        ("/v1/messages", b"{}", 400, "model is required"),
        ("/v1/embeddings", b"{}", 400, "invalid input"),
        ("/v1/embeddings", b'{"input":"a"}', 404, "model '' not found"),
        ("/api/chat", b'{"model":"nope"}', 404, "model 'nope' not found"),
        ("/api/generate", b'{"model":"Nope:X"}', 404, "model 'Nope:X' not found"),
        ("/api/embed", b'{"model":"nope"}', 404, 'model "nope" not found, try pulling it first'),
        ("/api/embeddings", b'{"model":"nope"}', 404, 'model "nope" not found, try pulling it first'),
        ("/v1/chat/completions", b'{"model":"nope"}', 404, "model 'nope' not found"),
        ("/api/chat", b'{"model":"a b"}', 400, "invalid model name"),
        ("/api/chat", b'{"model":"\\ud83d"}', 400, "invalid model name"),
        ("/v1/chat/completions", b'{"model":"a/b/c/d"}', 400, "invalid model name"),
    ],
)
async def test_each_path_has_its_own_error_texts(path: str, body: bytes, status: int, text: str) -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
        answer = await gateway.http.post(path, content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error if isinstance(error, str) else error["message"]) == (status, text)


async def test_a_client_can_read_the_413_for_a_body_over_the_limit() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny")), body_limit=100_000) as gateway:
        whole = await gateway.http.post("/api/chat", content=b"x" * 100_001)

        async def pieces() -> object:
            for _ in range(40):
                yield b"x" * 50_000

        chunked = await gateway.http.post("/v1/messages", content=pieces())  # type: ignore[arg-type]
    assert whole.json() == {"error": "the request body is larger than 100000 bytes"}
    assert (whole.status_code, chunked.status_code) == (413, 413)
    assert chunked.json()["error"]["type"] == "request_too_large"


async def test_a_large_body_arrives_complete() -> None:
    image = "a" * 30_000_000
    async with gateway_with_upstream() as (up, gateway):
        assert (await gateway.chat(images=[image])).status_code == 200
    assert json.loads(up.calls[0].body)["images"] == [image]
