"""/v1/chat/completions with a fake engine, and with OpenAI's client."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from corral_server.runner.llama.errors import EngineFailed
from tests.support.event_stream import chunks, event_data
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import ServedRunner, runner_state, serving, serving_state

PATH = "/v1/chat/completions"
HELLO: dict[str, object] = {"model": "Tiny:Latest", "messages": [{"role": "user", "content": "hi"}]}

PNG = "data:image/png;base64,aGk="


def refused(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert error["type"] == ("invalid_request_error" if response.status_code == 400 else "api_error")
    assert (error["param"], error["code"]) == (None, None)
    return response.status_code, error["message"]


def test_a_whole_completion(runner: ServedRunner) -> None:
    body = runner.post(PATH, HELLO).json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "Tiny:Latest"
    assert body["system_fingerprint"] == "fp_ollama"
    message = {"role": "assistant", "content": "Hello, world"}
    assert body["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = body["usage"]
    assert usage["completion_tokens"] == 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + 2


def test_a_stream_has_the_role_once_and_one_finish_chunk_and_done(runner: ServedRunner) -> None:
    response = runner.post(PATH, HELLO | {"stream": True})
    assert response.headers["content-type"] == "text/event-stream"
    got = chunks(response)
    choices = [chunk["choices"] for chunk in got]
    assert choices == [
        [{"index": 0, "delta": {"role": "assistant", "content": "Hello"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": ", world"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    ]
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in got}) == 1


def test_include_usage_adds_a_chunk_without_choices(runner: ServedRunner) -> None:
    got = chunks(runner.post(PATH, HELLO | {"stream": True, "stream_options": {"include_usage": True}}))
    assert got[-1]["choices"] == []
    assert isinstance(got[-1]["usage"], dict)
    assert not any("usage" in chunk for chunk in got[:-1])


def test_an_empty_stream_still_has_the_role(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.script = ()
    got = chunks(runner.post(PATH, HELLO | {"stream": True}))
    assert got[0]["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]


def test_finish_reason_length(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.reason = "length"
    assert runner.post(PATH, HELLO).json()["choices"][0]["finish_reason"] == "length"


def test_temperature_and_top_p_are_one_when_unset(engine: FakeEngine) -> None:
    with serving(engine, spec={"parameters": {"temperature": 0.1, "top_k": 3}}) as runner:
        runner.post(PATH, HELLO)
    sampling = engine.tasks[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 3)


def test_sampling_fields_reach_the_engine(runner: ServedRunner, engine: FakeEngine) -> None:
    given = {"temperature": 0, "top_p": 0.5, "seed": 7, "max_tokens": 5, "stop": "END", "max_completion_tokens": 99}
    runner.post(PATH, HELLO | given | {"frequency_penalty": 0.5, "presence_penalty": -0.5, "n": 3, "tool_choice": "x"})
    task = engine.tasks[-1]
    assert (task.sampling.temperature, task.sampling.top_p, task.sampling.seed) == (0, 0.5, 7)
    assert (task.sampling.frequency_penalty, task.sampling.presence_penalty) == (0.5, -0.5)
    assert (task.max_tokens, task.stop) == (5, ("END",))


@pytest.mark.parametrize(
    "wanted",
    [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}],
)
def test_response_format_becomes_a_grammar(runner: ServedRunner, engine: FakeEngine, wanted: object) -> None:
    runner.post(PATH, HELLO | {"response_format": wanted})
    assert engine.tasks[-1].grammar is not None


def test_response_format_text_has_no_grammar(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(PATH, HELLO | {"response_format": {"type": "text"}})
    assert engine.tasks[-1].grammar is None


def test_content_parts_become_messages(runner: ServedRunner, engine: FakeEngine) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    runner.post(PATH, HELLO | {"messages": [{"role": "user", "content": parts}]})
    assert engine.prompt_text() == "[user]a[user]b[assistant]"


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": 5}])
def test_a_message_with_calls_needs_no_content(
    runner: ServedRunner, engine: FakeEngine, content: dict[str, object]
) -> None:
    message = {"role": "assistant", "tool_calls": [], **content}
    assert runner.post(PATH, HELLO | {"messages": [message]}).status_code == 200
    assert engine.prompt_text() == "[assistant]"


def test_the_calls_of_a_message_with_parts_belong_to_the_last_of_them(engine: FakeEngine) -> None:
    calls = [{"id": "call_1", "function": {"name": "look", "arguments": "{}"}}]
    parts = [{"type": "text", "text": text} for text in "ab"]
    template = "{% for m in messages %}{{ m.content }}{{ m.tool_calls[0].function.name if m.tool_calls }};{% endfor %}"
    with serving(engine, template=template) as runner:
        message = {"role": "assistant", "content": parts, "tool_calls": calls}
        runner.post(PATH, HELLO | {"messages": [message, {"role": "user", "content": "c"}]})
    assert engine.prompt_text() == "a;blook;c;"


def test_keep_alive_is_not_changed(runner: ServedRunner) -> None:
    runner.post(PATH, HELLO | {"keep_alive": 1})
    assert runner.http.get("/activity").json()["keep_alive_s"] == 300


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"messages": []}, "[] is too short - 'messages'"),
        ({"model": ""}, "model is required"),
        ({"model": "a//b::c"}, "invalid model name"),
        ({"tools": [{"type": "function"}]}, "registry.ollama.ai/library/tiny:latest does not support tools"),
        ({"reasoning_effort": "high"}, '"Tiny:Latest" does not support thinking'),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid message content type: float64"),
        ({"messages": [{"role": "user", "content": None}]}, "invalid message content type: <nil>"),
        ({"messages": [{"role": "user", "tool_calls": None}]}, "invalid message content type: <nil>"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "invalid message format"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "https://a/b.png"}]}]},
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]},
            '"Tiny:Latest" does not support images',
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/gif;base64,"}]}]},
            "invalid image input",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "invalid message format"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "invalid message format"),
        (
            {"messages": True},
            "json: cannot unmarshal bool into Go struct field ChatCompletionRequest.messages of type []openai.Message",
        ),
    ],
)
def test_refusals(runner: ServedRunner, field: dict[str, object], text: str) -> None:
    assert refused(runner.post(PATH, HELLO | field)) == (400, text)


def test_reasoning_effort_none_is_accepted(runner: ServedRunner) -> None:
    assert runner.post(PATH, HELLO | {"reasoning_effort": "none"}).status_code == 200


def test_an_empty_body_is_eof(runner: ServedRunner) -> None:
    assert refused(runner.post(PATH, raw=b"")) == (400, "EOF")


def test_an_engine_failure_before_the_first_byte(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.script = (EngineFailed("decoding failed"),)
    assert refused(runner.post(PATH, HELLO | {"stream": True})) == (500, "decoding failed")


def test_an_error_in_the_stream_is_an_event_without_done(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.script = ("Hello", EngineFailed("decoding failed"))
    response = runner.post(PATH, HELLO | {"stream": True})
    assert response.status_code == 200
    assert "decoding failed" in json.loads(event_data(response)[-1])["error"]["message"]


def test_openais_client_streams(runner: ServedRunner) -> None:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{runner.port}/v1", api_key="x", max_retries=0) as client:
        stream = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == "Hello, world"


def test_a_request_while_loading_may_be_retried() -> None:
    with serving_state(runner_state()) as runner:
        response = runner.post(PATH, HELLO)
        assert response.headers["corral-retry"] == "loading"
        assert refused(response)[0] == 503
