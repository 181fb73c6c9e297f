"""``/tokenize`` and ``/detokenize`` with a fake engine, whose tokens are bytes."""

from __future__ import annotations

import pytest

from tests.support.fake_engine import BOS
from tests.support.runner_server import ServedRunner, runner_state, serving_state


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"content": "hi"}, [*b"hi"]),
        ({"content": "hi", "add_special": True}, [BOS, *b"hi"]),
        ({"content": "<s>a"}, [BOS, *b"a"]),
        ({"content": "<s>a", "parse_special": False}, [*b"<s>a"]),
        ({"content": ["a", 7, "b"], "add_special": True}, [BOS, *b"a", 7, *b"b"]),
        ({"content": None}, []),
        ({}, []),
    ],
)
def test_tokenize(runner: ServedRunner, body: dict[str, object], tokens: list[int]) -> None:
    assert runner.post("/tokenize", body).json() == {"tokens": tokens}


def test_pieces_are_texts_or_the_bytes_of_a_part_of_a_character(runner: ServedRunner) -> None:
    answer = runner.post("/tokenize", {"model": "tiny", "content": "aé", "with_pieces": True}).json()
    pieces = [{"id": 97, "piece": "a"}, {"id": 195, "piece": [195]}, {"id": 169, "piece": [169]}]
    assert answer == {"tokens": pieces}


def test_detokenize(runner: ServedRunner) -> None:
    assert runner.post("/detokenize", {"tokens": [*"aé".encode()]}).json() == {"content": "aé"}
    assert runner.post("/detokenize", {}).json() == {"content": ""}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/tokenize", {"content": 5}, '"content" must be a string or an array of strings and tokens'),
        ("/tokenize", {"content": [True]}, '"content" must be a string or an array of strings and tokens'),
        ("/tokenize", {"content": [-1], "with_pieces": True}, "a token is not in the model's vocabulary"),
        ("/tokenize", {"content": "a", "model": "a//b::c"}, "invalid model name"),
        ("/detokenize", {"tokens": [10**30]}, "a token is not in the model's vocabulary"),
        (
            "/detokenize",
            {"tokens": ["a"]},
            "json: cannot unmarshal string into Go struct field DetokenizeRequest.tokens of type int",
        ),
    ],
)
def test_refusals(runner: ServedRunner, path: str, body: dict[str, object], text: str) -> None:
    response = runner.post(path, body)
    assert (response.status_code, response.json()["error"]["message"]) == (400, text)


def test_a_text_beyond_the_memory_for_requests_is_not_tokenized(runner: ServedRunner) -> None:
    memory = runner.state.request_memory
    total, memory.total = memory.total, 1 << 20
    try:
        response = runner.post("/tokenize", {"content": "a" * 20000})
    finally:
        memory.total = total
    assert response.status_code == 413


def test_a_loading_runner_asks_the_gateway_to_try_again() -> None:
    with serving_state(runner_state()) as runner:
        response = runner.post("/tokenize", {"content": "a"})
    assert (response.status_code, response.headers["corral-retry"]) == (503, "loading")
    assert response.json()["error"]["type"] == "unavailable_error"
