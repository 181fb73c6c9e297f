"""/v1/completions over a fake engine: shapes, streams with their usage, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from corral_server.runner.generation import EngineFailed, Piece, TokenLogprob
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import FACTS, ServedRunner, runner_state, served, serving

PATH = "/v1/completions"
HELLO = {"model": "tiny", "prompt": "hi"}
ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.fixture(scope="module")
def shared_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def runner(shared_engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(shared_engine) as runner:
        yield runner


@pytest.fixture(autouse=True)
def engine(shared_engine: FakeEngine) -> FakeEngine:
    shared_engine.tasks.clear()
    return shared_engine


def chunks(text: str) -> list[dict[str, Any]]:
    """The events of a stream, which ends with [DONE]."""
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_a_whole_answer_is_one_object(runner: ServedRunner, engine: FakeEngine) -> None:
    response = runner.post(PATH, HELLO)
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body = response.json()
    prompt = len(engine.tasks[0].prompt)
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created") > 0
    assert body == {
        "object": "text_completion",
        "model": "tiny",
        "system_fingerprint": "fp_ollama",
        "choices": [{"text": "Hello, world", "index": 0, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2},
    }


def test_the_prompt_goes_through_the_template(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(PATH, HELLO)
    assert "[user]hi[assistant]" in engine.prompt_text()


def test_a_stream_has_a_chunk_for_each_piece_and_a_last_one_with_the_reason(runner: ServedRunner) -> None:
    response = runner.post(PATH, HELLO | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = chunks(response.text)
    assert [chunk["choices"] for chunk in found] == [
        [{"text": "Hello", "index": 0, "finish_reason": None}],
        [{"text": ", world", "index": 0, "finish_reason": None}],
        [{"text": "", "index": 0, "finish_reason": "stop"}],
    ]
    assert {chunk["object"] for chunk in found} == {"text_completion"}
    assert len({(chunk["id"], chunk["created"]) for chunk in found}) == 1
    assert not any("usage" in chunk for chunk in found)


def test_usage_is_zero_in_every_chunk_but_one_that_has_no_choices(runner: ServedRunner, engine: FakeEngine) -> None:
    body = HELLO | {"stream": True, "stream_options": {"include_usage": True}}
    *others, last = chunks(runner.post(PATH, body).text)
    prompt = len(engine.tasks[0].prompt)
    assert [chunk["usage"] for chunk in others] == [ZEROS] * 3
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2}


def test_options_become_those_of_the_task(runner: ServedRunner, engine: FakeEngine) -> None:
    asked = {"max_tokens": 3, "seed": 7, "stop": "x", "frequency_penalty": 0.5}
    runner.post(PATH, HELLO | asked)
    task = engine.tasks[0]
    assert (task.max_tokens, task.stop, task.sampling.seed, task.sampling.frequency_penalty) == (3, ("x",), 7, 0.5)
    assert (task.sampling.temperature, task.sampling.top_p) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("asked", "wanted"), [({}, (False, 0)), ({"logprobs": 0}, (False, 0)), ({"logprobs": 2}, (True, 2))]
)
def test_logprobs_is_a_count_and_zero_means_none(
    runner: ServedRunner, engine: FakeEngine, asked: dict[str, int], wanted: tuple[bool, int]
) -> None:
    runner.post(PATH, HELLO | asked)
    assert (engine.tasks[0].logprobs, engine.tasks[0].top_logprobs) == wanted


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_are_with_their_choice(stream: bool) -> None:
    piece = Piece("Hi", (TokenLogprob("Hi", -0.5, b"Hi", (TokenLogprob("Yo", -1.5, b"Yo"),)),))
    with serving(FakeEngine(script=(piece,))) as runner:
        response = runner.post(PATH, HELLO | {"logprobs": 1, "stream": stream})
    choice = (chunks(response.text)[0] if stream else response.json())["choices"][0]
    (first,) = choice["logprobs"]["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == ("Hi", -0.5, [72, 105])
    assert first["top_logprobs"][0]["token"] == "Yo"


def test_thinking_is_not_shown() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think></think>"
    facts = replace(FACTS, capabilities=("completion", "thinking"), template=template)
    engine = FakeEngine(script=("<think>hm", "m</think>", "yes"))
    with serving(engine, facts=facts, template=template) as runner:
        assert runner.post(PATH, HELLO).json()["choices"][0]["text"] == "yes"
        texts = [chunk["choices"] for chunk in chunks(runner.post(PATH, HELLO | {"stream": True}).text)]
    assert [choice[0]["text"] for choice in texts if isinstance(choice, list)] == ["yes", ""]


@pytest.mark.parametrize("stream", [True, False])
def test_without_a_prompt_the_model_is_only_loaded(runner: ServedRunner, engine: FakeEngine, stream: bool) -> None:
    response = runner.post(PATH, {"model": "tiny", "stream": stream})
    body = chunks(response.text)[-1] if stream else response.json()
    assert body["choices"] == [{"text": "", "index": 0, "finish_reason": "load"}]
    assert engine.tasks == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"prompt": "hi"}, 404, "model '' not found"),
        (HELLO | {"suffix": "x"}, 400, "registry.ollama.ai/library/tiny:latest does not support insert"),
        (
            HELLO | {"prompt": ["hi"]},
            400,
            "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string",
        ),
        (HELLO | {"logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        (HELLO | {"model": "a b"}, 400, "invalid model name"),
    ],
)
def test_refusals(runner: ServedRunner, body: object, status: int, message: str) -> None:
    response = runner.post(PATH, body)
    kind = {400: "invalid_request_error", 404: "not_found_error"}[status]
    assert response.status_code == status
    assert response.json() == {"error": {"message": message, "type": kind, "param": None, "code": None}}


def test_an_empty_body_is_refused(runner: ServedRunner) -> None:
    response = runner.post(PATH, raw=b"")
    assert (response.status_code, response.json()["error"]["message"]) == (400, "EOF")


def test_an_embedding_model_cannot_complete() -> None:
    with serving(FakeEngine(), facts=replace(FACTS, capabilities=("embedding",))) as runner:
        response = runner.post(PATH, HELLO)
    assert (response.status_code, response.json()["error"]["message"]) == (400, '"tiny" does not support generate')


def test_a_failure_in_a_stream_ends_it_with_an_error() -> None:
    with serving(FakeEngine(script=("Hello", EngineFailed("no memory")))) as runner:
        text = runner.post(PATH, HELLO | {"stream": True}).text
    last = json.loads(text.rstrip().rsplit("data: ", 1)[1])
    assert "no memory" in last["error"]["message"]


def test_a_runner_that_loads_asks_for_another_try() -> None:
    with served(runner_state()) as runner:
        response = runner.post(PATH, HELLO)
    assert (response.status_code, response.headers["corral-retry"]) == (503, "loading")


def test_a_stop_that_is_no_text_is_refused(runner: ServedRunner) -> None:
    answer = runner.post(PATH, {"model": "tiny", "prompt": "x", "stop": ["a", None]})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "invalid type for 'stop' field: <nil>"
