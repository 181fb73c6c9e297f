"""/v1/completions with a fake engine: responses, streams with usage, errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from corral_server.runner.llama.errors import EngineFailed
from corral_server.runner.sampling.text import TextChunk, TokenLogprob
from tests.support.event_stream import chunks
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, runner_state, serving, serving_state

PATH = "/v1/completions"
HELLO = {"model": "tiny", "prompt": "hi"}
ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def test_a_response_without_stream_is_one_object(runner: ServedRunner, engine: FakeEngine) -> None:
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


def test_the_prompt_is_rendered_by_the_template(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(PATH, HELLO)
    assert "[user]hi[assistant]" in engine.prompt_text()


def test_a_stream_ends_with_a_chunk_that_has_the_finish_reason(runner: ServedRunner) -> None:
    response = runner.post(PATH, HELLO | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = chunks(response)
    assert [chunk["choices"] for chunk in found] == [
        [{"text": "Hello", "index": 0, "finish_reason": None}],
        [{"text": ", world", "index": 0, "finish_reason": None}],
        [{"text": "", "index": 0, "finish_reason": "stop"}],
    ]
    assert {chunk["object"] for chunk in found} == {"text_completion"}
    assert len({(chunk["id"], chunk["created"]) for chunk in found}) == 1
    assert not any("usage" in chunk for chunk in found)


def test_usage_is_zero_in_all_chunks_except_the_last_without_choices(runner: ServedRunner, engine: FakeEngine) -> None:
    body = HELLO | {"stream": True, "stream_options": {"include_usage": True}}
    *others, last = chunks(runner.post(PATH, body))
    prompt = len(engine.tasks[0].prompt)
    assert [chunk["usage"] for chunk in others] == [ZEROS] * 3
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2}


def test_options_reach_the_engine(runner: ServedRunner, engine: FakeEngine) -> None:
    asked = {"max_tokens": 3, "seed": 7, "stop": "x", "frequency_penalty": 0.5}
    runner.post(PATH, HELLO | asked)
    task = engine.tasks[0]
    assert (task.max_tokens, task.stop, task.sampling.seed, task.sampling.frequency_penalty) == (3, ("x",), 7, 0.5)
    assert (task.sampling.temperature, task.sampling.top_p) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("asked", "wanted"), [({}, (False, 0)), ({"logprobs": 0}, (False, 0)), ({"logprobs": 2}, (True, 2))]
)
def test_logprobs_is_a_number_and_zero_means_none(
    runner: ServedRunner, engine: FakeEngine, asked: dict[str, int], wanted: tuple[bool, int]
) -> None:
    runner.post(PATH, HELLO | asked)
    assert (engine.tasks[0].logprobs, engine.tasks[0].top_logprobs) == wanted


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_are_in_the_choice(stream: bool) -> None:
    piece = TextChunk("Hi", (TokenLogprob("Hi", -0.5, b"Hi", (TokenLogprob("Yo", -1.5, b"Yo"),)),))
    with serving(FakeEngine(script=(piece,))) as runner:
        response = runner.post(PATH, HELLO | {"logprobs": 1, "stream": stream})
    choice = (chunks(response)[0] if stream else response.json())["choices"][0]
    (first,) = choice["logprobs"]["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == ("Hi", -0.5, [72, 105])
    assert first["top_logprobs"][0]["token"] == "Yo"


def test_thinking_is_not_part_of_the_response() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<think></think>"
    metadata = replace(METADATA, capabilities=("completion", "thinking"), template=template)
    engine = FakeEngine(script=("<think>hm", "m</think>", "yes"))
    with serving(engine, metadata=metadata, template=template) as runner:
        assert runner.post(PATH, HELLO).json()["choices"][0]["text"] == "yes"
        texts = [chunk["choices"] for chunk in chunks(runner.post(PATH, HELLO | {"stream": True}))]
    assert [choice[0]["text"] for choice in texts if isinstance(choice, list)] == ["yes", ""]


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_without_prompt_only_loads_the_model(runner: ServedRunner, engine: FakeEngine, stream: bool) -> None:
    response = runner.post(PATH, {"model": "tiny", "stream": stream})
    body = chunks(response)[-1] if stream else response.json()
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
    with serving(FakeEngine(), metadata=replace(METADATA, capabilities=("embedding",))) as runner:
        response = runner.post(PATH, HELLO)
    assert (response.status_code, response.json()["error"]["message"]) == (400, '"tiny" does not support generate')


def test_an_error_in_the_stream_ends_it() -> None:
    with serving(FakeEngine(script=("Hello", EngineFailed("no memory")))) as runner:
        text = runner.post(PATH, HELLO | {"stream": True}).text
    last = json.loads(text.rstrip().rsplit("data: ", 1)[1])
    assert "no memory" in last["error"]["message"]


def test_a_request_while_loading_may_be_retried() -> None:
    with serving_state(runner_state()) as runner:
        response = runner.post(PATH, HELLO)
    assert (response.status_code, response.headers["corral-retry"]) == (503, "loading")


def test_a_stop_item_that_is_not_a_string_is_refused(runner: ServedRunner) -> None:
    answer = runner.post(PATH, {"model": "tiny", "prompt": "x", "stop": ["a", None]})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "invalid type for 'stop' field: <nil>"
