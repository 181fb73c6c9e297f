"""/v1/responses with a fake engine, and with OpenAI's client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from tests.support.event_stream import named_events
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving

PATH = "/v1/responses"
HELLO: dict[str, object] = {"model": "tiny", "input": "hi"}
TOOL = {"type": "function", "name": "get_weather", "description": "d", "parameters": {"type": "object"}}
CALLING = (
    "<think>hm</think>\n",
    "Looking.\n",
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>',
)
TEMPLATE = (
    "{{ reasoning_effort }}{% if tools %}{{ tools[0].function.name }}{% endif %}{% for m in messages %}[{{ m.role }}]"
    "{% if m.thinking %}({{ m.thinking }}){% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endfor %}"
)
KEYS = [
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def runner(engine: FakeEngine) -> Iterator[ServedRunner]:
    metadata = replace(METADATA, capabilities=("completion", "tools", "thinking"))
    with serving(engine, template=TEMPLATE, metadata=metadata) as runner:
        yield runner


def kinds(got: list[dict[str, Any]]) -> list[str]:
    return [str(event["type"]).removeprefix("response.") for event in got]


def test_a_whole_response(runner: ServedRunner) -> None:
    body = runner.post(PATH, HELLO).json()
    assert list(body) == KEYS
    assert (body["object"], body["status"], body["store"], body["tool_choice"]) == (
        "response",
        "completed",
        False,
        "auto",
    )
    (item,) = body["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"] == [{"type": "output_text", "text": "Hello, world", "annotations": [], "logprobs": []}]
    assert (body["usage"]["output_tokens"], body["temperature"], body["top_p"]) == (2, 1.0, 1.0)
    assert body["usage"]["input_tokens_details"] == {"cached_tokens": 0}


def test_a_stream_of_text(runner: ServedRunner) -> None:
    response = runner.post(PATH, HELLO | {"stream": True})
    assert response.headers["content-type"] == "text/event-stream"
    got = named_events(response)
    assert kinds(got) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in got] == list(range(10))
    assert "[DONE]" not in response.text
    assert got[6]["text"] == "Hello, world"


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_tokens_are_counted(runner: ServedRunner, engine: FakeEngine, stream: bool) -> None:
    engine.script = ("<think>", "h", "m", "</think>", "Hello")
    answer = runner.post(PATH, HELLO | {"stream": stream})
    response = named_events(answer)[-1]["response"] if stream else answer.json()
    assert isinstance(response, dict)
    usage = response["usage"]
    assert (usage["output_tokens"], usage["output_tokens_details"]) == (5, {"reasoning_tokens": 2})
    engine.script = ("Hello",)
    assert runner.post(PATH, HELLO).json()["usage"]["output_tokens_details"] == {"reasoning_tokens": 0}


def test_a_stream_of_reasoning_text_and_a_call(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.script = CALLING
    got = named_events(runner.post(PATH, HELLO | {"stream": True, "tools": [TOOL]}))
    assert kinds(got)[2:-1] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    done = [event["item"] for event in got if event["type"] == "response.output_item.done"]
    last = got[-1]["response"]
    assert isinstance(last, dict)
    assert last["output"] == done
    assert [event["output_index"] for event in got if event["type"] == "response.output_item.added"] == [0, 1, 2]


def test_a_function_call_has_its_arguments_as_a_string(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.script = CALLING
    output = runner.post(PATH, HELLO | {"tools": [TOOL]}).json()["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert (output[2]["name"], output[2]["arguments"]) == ("get_weather", '{"city":"Paris"}')
    assert output[2]["call_id"].startswith("call_")


def test_a_response_that_reaches_its_limit_is_incomplete(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.reason = "length"
    body = runner.post(PATH, HELLO | {"max_output_tokens": 2}).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert engine.tasks[-1].max_tokens == 2


def test_instructions_and_content_parts_reach_the_template(runner: ServedRunner, engine: FakeEngine) -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    runner.post(PATH, {"model": "tiny", "instructions": "be brief", "input": [{"role": "user", "content": parts}]})
    assert engine.prompt_text() == "[system]be brief[user]ab"


def test_earlier_items_become_messages(runner: ServedRunner, engine: FakeEngine) -> None:
    items = [
        {"type": "message", "role": "developer", "content": "s"},
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Looking."}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "warm"},
    ]
    runner.post(PATH, {"model": "tiny", "input": items, "reasoning": {"effort": "low"}})
    call = json.dumps({"name": "f", "arguments": {"a": 1}})
    written = f"[system]s[user]hi[assistant](hm)Looking.<tool_call>{call}</tool_call>[tool]warm"
    assert engine.prompt_text() == f"low{written}"


def test_a_schema_is_a_grammar(runner: ServedRunner, engine: FakeEngine) -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    runner.post(PATH, HELLO | {"text": {"format": form}})
    assert engine.tasks[-1].grammar is not None


def test_a_named_tool_must_be_called(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(PATH, HELLO | {"tools": [TOOL], "tool_choice": {"type": "function", "name": "get_weather"}})
    assert (grammar := engine.tasks[-1].grammar) is not None
    assert "<tool_call>" in grammar.markers


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"model": ""}, "model is required"),
        ({"input": None}, "input is required"),
        ({"input": [{"type": "computer_call"}]}, "unsupported input item type: computer_call"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{"}]}, "invalid function_call arguments"),
    ],
)
def test_refusals(runner: ServedRunner, field: dict[str, object], text: str) -> None:
    response = runner.post(PATH, HELLO | field)
    assert (response.status_code, response.json()["error"]["message"]) == (400, text)
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.fixture
def client(runner: ServedRunner) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{runner.port}/v1", api_key="x", max_retries=0) as client:
        yield client


def test_openais_client_gets_a_response(client: openai.OpenAI) -> None:
    assert client.responses.create(model="tiny", input="hi").output_text == "Hello, world"


def test_openais_client_streams_a_response(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = CALLING
    with client.responses.stream(
        model="tiny",
        input="hi",
        tools=[{"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": False}],
    ) as stream:
        for _ in stream:
            pass
        response = stream.get_final_response()
    assert response.output_text == "Looking."
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
