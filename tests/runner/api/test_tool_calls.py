"""Tool calls of Ollama's and OpenAI's chat API with a fake engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import ollama
import openai
import pytest

from tests.runner.tool_calls.transcripts import WEATHER
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]"
    "{% if m.name %}{{ m.name }}={% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endfor %}"
)
SCRIPT = (
    "Let me look.\n<tool",
    '_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>\n',
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>',
)
CHAT, OPENAI = "/api/chat", "/v1/chat/completions"
HELLO: dict[str, object] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "tools": [WEATHER]}
ID = re.compile(r"call_[a-z0-9]{8}")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(script=SCRIPT)


@pytest.fixture
def runner(engine: FakeEngine) -> Iterator[ServedRunner]:
    metadata = replace(METADATA, capabilities=("completion", "tools"))
    with serving(engine, metadata=metadata, template=TEMPLATE) as runner:
        yield runner


def deltas(response: httpx.Response) -> list[dict[str, object]]:
    events = [event.removeprefix("data: ") for event in response.text.removesuffix("\n\n").split("\n\n")]
    return [json.loads(event)["choices"][0] for event in events if event != "[DONE]"]


def test_ollama_chat_streams_complete_calls_with_an_arguments_object(runner: ServedRunner) -> None:
    messages = [json.loads(line)["message"] for line in runner.post(CHAT, HELLO).text.splitlines()]
    assert [message["content"] for message in messages] == ["Let me look.", "", "", ""]
    calls = [message["tool_calls"] for message in messages[1:3]]
    assert all(ID.fullmatch(call[0].pop("id")) for call in calls)
    assert calls == [
        [{"function": {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}}],
        [{"function": {"index": 1, "name": "get_weather", "arguments": {"city": "Rome"}}}],
    ]
    assert "tool_calls" not in messages[3]


def test_ollama_chat_returns_all_calls_with_reason_stop(runner: ServedRunner) -> None:
    body = runner.post(CHAT, HELLO | {"stream": False}).json()
    assert body["done_reason"] == "stop"
    assert body["message"]["content"] == "Let me look."
    assert [call["function"]["arguments"]["city"] for call in body["message"]["tool_calls"]] == ["Paris", "Rome"]


def test_openai_chat_returns_arguments_as_text_with_reason_tool_calls(runner: ServedRunner) -> None:
    choice = runner.post(OPENAI, HELLO).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    first = choice["message"]["tool_calls"][0]
    assert ID.fullmatch(first.pop("id"))
    assert first == {
        "index": 0,
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
    }


def test_openai_chat_streams_calls_in_separate_chunks(runner: ServedRunner) -> None:
    choices = deltas(runner.post(OPENAI, HELLO | {"stream": True}))
    assert choices[0]["delta"] == {"role": "assistant", "content": "Let me look."}
    assert [list(choice["delta"]) for choice in choices[1:3]] == [["tool_calls"], ["tool_calls"]]  # type: ignore[call-overload]  # JSON
    assert choices[-1] == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}


def test_the_template_gets_the_tools(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, HELLO)
    assert engine.prompt_text().startswith(json.dumps([WEATHER]))


def test_without_tools_the_text_is_not_parsed(runner: ServedRunner, engine: FakeEngine) -> None:
    body = runner.post(CHAT, HELLO | {"tools": [], "stream": False}).json()
    assert body["message"] == {"role": "assistant", "content": "".join(SCRIPT)}
    assert engine.prompt_text() == "[user]hi"


def test_the_template_gets_results_by_tool_name(runner: ServedRunner, engine: FakeEngine) -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "warm", "tool_name": "get_weather"},
    ]
    runner.post(CHAT, HELLO | {"messages": history, "tools": None})
    written = json.dumps({"name": "get_weather", "arguments": {"city": "Paris"}})
    assert engine.prompt_text() == f"[user]hi[assistant]<tool_call>{written}</tool_call>[tool]get_weather=warm"


def test_openai_results_get_their_name_by_call_id(runner: ServedRunner, engine: FakeEngine) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "warm", "tool_call_id": "c1"},
    ]
    runner.post(OPENAI, HELLO | {"messages": history, "tools": None})
    assert engine.prompt_text().endswith("[tool]get_weather=warm")


def test_arguments_that_are_not_json_are_rejected(runner: ServedRunner) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    history = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    response = runner.post(OPENAI, HELLO | {"messages": history})
    assert (response.status_code, response.json()["error"]["message"]) == (400, "invalid tool call arguments")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_required_tool_call_becomes_a_grammar_in_chat(
    runner: ServedRunner, engine: FakeEngine, choice: object
) -> None:
    runner.post(OPENAI, HELLO | {"tool_choice": choice})
    grammar = engine.tasks[-1].grammar
    assert grammar is not None
    assert '"\\n{\\"name\\": \\"get_weather\\", \\"arguments\\": "' in grammar.rules


def test_tool_choice_none_hides_the_tools(runner: ServedRunner, engine: FakeEngine) -> None:
    choice = runner.post(OPENAI, HELLO | {"tool_choice": "none"}).json()["choices"][0]
    assert engine.prompt_text() == "[user]hi"
    assert choice["message"]["content"] == "".join(SCRIPT)


def test_an_unknown_tool_choice_is_rejected(runner: ServedRunner) -> None:
    response = runner.post(OPENAI, HELLO | {"tool_choice": {"type": "function", "function": {"name": "other"}}})
    assert response.status_code == 400
    assert "tool_choice" in response.json()["error"]["message"]


@pytest.mark.parametrize("tools", [5, [5], [{"type": 5}], [{"function": 5}], [{"function": {"name": 5}}]])
def test_tools_of_a_wrong_type_are_rejected(runner: ServedRunner, tools: object) -> None:
    assert runner.post(CHAT, HELLO | {"tools": tools}).status_code == 400


def test_the_ollama_client_returns_calls(runner: ServedRunner) -> None:
    with ollama.Client(f"http://127.0.0.1:{runner.port}") as client:
        answer = client.chat("tiny", [{"role": "user", "content": "hi"}], tools=[WEATHER])
    assert answer.message.tool_calls is not None
    assert [call.function.arguments for call in answer.message.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]


def test_the_openai_client_returns_calls(runner: ServedRunner) -> None:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{runner.port}/v1", api_key="x", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            tools=[WEATHER],  # type: ignore[list-item]  # the same JSON
        )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.name for call in calls if call.type == "function"] == ["get_weather", "get_weather"]
