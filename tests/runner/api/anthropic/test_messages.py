"""/v1/messages with a fake engine, and with Anthropic's client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import anthropic
import httpx
import pytest

from corral_server.runner.llama.errors import EngineFailed
from tests.support.event_stream import named_events
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, runner_state, serving, serving_state

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
HELLO: dict[str, object] = {"model": "tiny", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
TOOL = {"name": "get_weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}
WRONG_CONTENT = (
    "json: cannot unmarshal number into Go struct field MessagesRequest.messages of type []anthropic.ContentBlock"
)
CALLING = (
    "<think>hm</think>\n",
    "Looking.\n",
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>',
)
TEMPLATE = (
    "{{ thinking }}{% if tools %}{{ tools[0].function.name }}{% endif %}{% for m in messages %}[{{ m.role }}]"
    "{% if m.thinking %}({{ m.thinking }}){% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endfor %}"
)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def plain(engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(engine, template=TEMPLATE) as runner:
        yield runner


@pytest.fixture
def able(engine: FakeEngine) -> Iterator[ServedRunner]:
    metadata = replace(METADATA, capabilities=("completion", "tools", "thinking"))
    with serving(engine, template=TEMPLATE, metadata=metadata) as runner:
        yield runner


def refused(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()
    assert body["type"] == "error"
    assert re.fullmatch(r"req_[0-9a-f]{24}", body["request_id"])
    return response.status_code, body["error"]["type"], body["error"]["message"]


def test_a_whole_message(plain: ServedRunner) -> None:
    body = plain.post(PATH, HELLO).json()
    assert re.fullmatch(r"msg_[0-9a-f]{24}", body.pop("id"))
    usage = body.pop("usage")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [{"type": "text", "text": "Hello, world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    assert (usage["input_tokens"] > 0, usage["output_tokens"]) == (True, 2)


def test_a_stream_of_text(plain: ServedRunner) -> None:
    response = plain.post(PATH, HELLO | {"stream": True})
    assert response.headers["content-type"] == "text/event-stream"
    got = named_events(response)
    assert [event["type"] for event in got] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert got[2]["delta"] == {"type": "text_delta", "text": "Hello"}
    assert got[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


@pytest.mark.parametrize(
    ("by", "reason", "told"),
    [("<a>", "stop_sequence", "<a>"), ("<model's own>", "end_turn", None), ("", "end_turn", None)],
)
def test_a_stop_sequence_of_the_request_is_reported(
    plain: ServedRunner, engine: FakeEngine, by: str, reason: str, told: str | None
) -> None:
    engine.stop = by
    asked = HELLO | {"stop_sequences": ["<b>", "<a>"]}
    body = plain.post(PATH, asked).json()
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, told)
    delta = named_events(plain.post(PATH, asked | {"stream": True}))[-2]["delta"]
    assert delta == {"stop_reason": reason, "stop_sequence": told}


def test_a_stream_ends_each_block_before_the_next(able: ServedRunner, engine: FakeEngine) -> None:
    engine.script = CALLING
    got = named_events(able.post(PATH, HELLO | {"stream": True, "tools": [TOOL]}))
    blocks = [(event["type"], event["index"]) for event in got if "index" in event]
    assert blocks == [(f"content_block_{step}", index) for index in range(3) for step in ("start", "delta", "stop")]
    starts = [event["content_block"] for event in got if event["type"] == "content_block_start"]
    assert [start["type"] for start in starts if isinstance(start, dict)] == ["thinking", "text", "tool_use"]
    deltas = [event["delta"] for event in got if event["type"] == "content_block_delta"]
    assert deltas == [
        {"type": "thinking_delta", "thinking": "hm"},
        {"type": "text_delta", "text": "Looking."},
        {"type": "input_json_delta", "partial_json": '{"city":"Paris"}'},
    ]
    assert got[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}


def test_a_whole_message_with_thinking_and_a_call(able: ServedRunner, engine: FakeEngine) -> None:
    engine.script = CALLING
    body = able.post(PATH, HELLO | {"tools": [TOOL]}).json()
    assert [block["type"] for block in body["content"]] == ["thinking", "text", "tool_use"]
    assert body["content"][2]["input"] == {"city": "Paris"}
    assert body["stop_reason"] == "tool_use"


def test_stop_reason_max_tokens(plain: ServedRunner, engine: FakeEngine) -> None:
    engine.reason = "length"
    assert plain.post(PATH, HELLO).json()["stop_reason"] == "max_tokens"
    assert engine.tasks[-1].max_tokens == 50


def test_sampling_reaches_the_engine(plain: ServedRunner, engine: FakeEngine) -> None:
    plain.post(PATH, HELLO | {"temperature": 0.1, "top_p": 0.2, "top_k": 3, "stop_sequences": ["END"]})
    task = engine.tasks[-1]
    assert (task.sampling.temperature, task.sampling.top_p, task.sampling.top_k) == (0.1, 0.2, 3)
    assert task.stop == ("END",)


@pytest.mark.parametrize("system", ["be brief", [{"type": "text", "text": "be brief"}]])
def test_the_system_prompt_comes_first(plain: ServedRunner, engine: FakeEngine, system: object) -> None:
    plain.post(PATH, HELLO | {"system": system})
    assert engine.prompt_text() == "[system]be brief[user]hi"


def test_tool_calls_and_results_become_messages(able: ServedRunner, engine: FakeEngine) -> None:
    history = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "warm"}]},
                {"type": "text", "text": "so?"},
            ],
        },
    ]
    able.post(PATH, HELLO | {"messages": history, "tools": [TOOL], "thinking": {"type": "disabled"}})
    call = json.dumps({"name": "get_weather", "arguments": {"city": "Paris"}})
    written = f"[user]hi[assistant](hm)<tool_call>{call}</tool_call>[tool]warm[user]so?"
    assert engine.prompt_text() == f"Falseget_weather{written}"


def test_a_required_tool_call_becomes_a_grammar(able: ServedRunner, engine: FakeEngine) -> None:
    able.post(PATH, HELLO | {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}})
    grammar = engine.tasks[-1].grammar
    assert grammar is not None
    assert "<tool_call>" in grammar.markers


@pytest.mark.parametrize(
    ("effort", "level"), [("low", "low"), (" XHigh ", "high"), ("max", "high"), ("ultra", ""), ("minimal", "")]
)
def test_the_effort_is_mapped_to_a_level(engine: FakeEngine, effort: str, level: str) -> None:
    metadata = replace(METADATA, capabilities=("completion", "thinking"))
    with serving(engine, template="{{ reasoning_effort }};", metadata=metadata) as runner:
        runner.post(PATH, HELLO | {"output_config": {"effort": effort}})
    assert engine.prompt_text() == f"{level};"


@pytest.mark.parametrize(("kind", "expected"), [("enabled", "True;"), ("disabled", "False;")])
def test_thinking_takes_precedence_over_the_effort(engine: FakeEngine, kind: str, expected: str) -> None:
    metadata = replace(METADATA, capabilities=("completion", "thinking"))
    with serving(engine, template="{{ thinking }};{{ reasoning_effort }}", metadata=metadata) as runner:
        runner.post(PATH, HELLO | {"thinking": {"type": kind}, "output_config": {"effort": "low"}})
    assert engine.prompt_text() == expected


@pytest.mark.parametrize("thinking", [{"type": "enabled", "budget_tokens": 1024}, {"type": "disabled"}])
def test_thinking_is_ignored_for_a_model_without_thinking(plain: ServedRunner, thinking: object) -> None:
    assert plain.post(PATH, HELLO | {"thinking": thinking}).status_code == 200


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"model": ""}, "model is required"),
        ({"max_tokens": None}, "max_tokens is required and must be positive"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
        ({"model": "a//b::c"}, "invalid model name"),
        ({"tools": [TOOL]}, "registry.ollama.ai/library/tiny:latest does not support tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
            "unsupported content block type: video",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, WRONG_CONTENT),
    ],
)
def test_refusals(plain: ServedRunner, field: dict[str, object], text: str) -> None:
    assert refused(plain.post(PATH, HELLO | field)) == (400, "invalid_request_error", text)


def test_count_tokens_counts_the_prompt_of_the_same_message(able: ServedRunner, engine: FakeEngine) -> None:
    body = HELLO | {"system": "Be brief.", "tools": [TOOL], "thinking": {"type": "enabled", "budget_tokens": 1024}}
    able.post(PATH, body)
    counted = able.post(COUNT, body)
    assert counted.json() == {"input_tokens": len(engine.tasks[-1].prompt)}
    assert len(engine.tasks) == 1


def test_count_tokens_needs_no_max_tokens_and_counts_what_exceeds_the_context(plain: ServedRunner) -> None:
    messages = [{"role": "user", "content": "a" * 50_000}, {"role": "user", "content": "b" * 100_000}]
    counted = plain.post(COUNT, {"model": "tiny", "messages": messages}).json()["input_tokens"]
    assert counted == 150_000 + 2 * len("[user]") + 1


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"model": ""}, "model is required"),
        ({"messages": []}, "messages is required"),
        ({"tools": [TOOL]}, "registry.ollama.ai/library/tiny:latest does not support tools"),
    ],
)
def test_count_tokens_refuses_what_messages_refuses(plain: ServedRunner, field: dict[str, object], text: str) -> None:
    assert refused(plain.post(COUNT, HELLO | field)) == (400, "invalid_request_error", text)


def test_a_text_beyond_the_memory_for_requests_is_not_counted(plain: ServedRunner) -> None:
    plain.state.request_memory.total = 1 << 20
    response = plain.post(COUNT, HELLO | {"messages": [{"role": "user", "content": "a" * 20_000}]})
    assert refused(response)[:2] == (413, "request_too_large")


def test_a_request_while_loading_is_an_overloaded_error() -> None:
    with serving_state(runner_state()) as runner:
        response = runner.post(PATH, HELLO)
    assert response.headers["corral-retry"] == "loading"
    assert refused(response)[:2] == (503, "overloaded_error")


def test_an_error_in_the_stream_is_an_event(plain: ServedRunner, engine: FakeEngine) -> None:
    engine.script = ("Hello", EngineFailed("decoding failed"))
    last = named_events(plain.post(PATH, HELLO | {"stream": True}))[-1]
    assert last["type"] == "error"
    assert "decoding failed" in str(last["error"])


@pytest.fixture
def client(able: ServedRunner) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{able.port}", api_key="x", max_retries=0) as client:
        yield client


def test_anthropics_client_streams_a_message(client: anthropic.Anthropic, engine: FakeEngine) -> None:
    engine.script = CALLING
    with client.messages.stream(
        model="tiny",
        max_tokens=50,
        messages=[{"role": "user", "content": "hi"}],
        tools=[{"name": "get_weather", "input_schema": {"type": "object"}}],
    ) as stream:
        assert "".join(stream.text_stream) == "Looking."
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    last = message.content[-1]
    assert last.type == "tool_use"
    assert last.input == {"city": "Paris"}
    assert message.stop_reason == "tool_use"


def test_anthropics_client_gets_a_message(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="tiny", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello, world"


def test_anthropics_client_recognizes_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens is required"):
        client.messages.create(model="tiny", max_tokens=0, messages=[{"role": "user", "content": "hi"}])
