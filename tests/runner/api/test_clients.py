"""The official clients of all three APIs with the real model: tools, streams and logprobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import anthropic
import ollama
import openai
import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from tests.runner.engines import weights
from tests.support.runner_server import METADATA, ServedRunner, serving

pytestmark = pytest.mark.process

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
}
WEATHER: dict[str, object] = {"name": "get_weather", "description": "The weather", "parameters": SCHEMA}
QUESTION = "What is the weather in Rome?"


@pytest.fixture(scope="module")
def runner() -> Iterator[ServedRunner]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=1024, slots=1, threads=1))
    metadata = replace(METADATA, capabilities=("completion", "tools"))
    try:
        with serving(engine, template=TEMPLATE, metadata=metadata) as runner:
            yield runner
    finally:
        engine.close()


@pytest.fixture
def openai_client(runner: ServedRunner) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{runner.port}/v1", api_key="x", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(runner: ServedRunner) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{runner.port}", api_key="x", max_retries=0) as client:
        yield client


def test_openais_chat_calls_a_tool_and_uses_its_result(openai_client: openai.OpenAI) -> None:
    question: dict[str, object] = {"role": "user", "content": QUESTION}
    tools = [{"type": "function", "function": WEATHER}]
    first = openai_client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": QUESTION}],
        tool_choice="required",
        max_completion_tokens=60,
        extra_body={"tools": tools},
    )
    assert first.choices[0].finish_reason == "tool_calls"
    answer = first.choices[0].message
    assert answer.tool_calls
    result = {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": "sunny"}
    second = openai_client.chat.completions.create(
        model="tiny",
        messages=[],
        max_tokens=5,
        extra_body={"messages": [question, answer.model_dump(exclude_none=True), result]},
    )
    assert second.choices[0].message.content


def test_openais_stream_has_logprobs_for_each_token(openai_client: openai.OpenAI) -> None:
    stream = openai_client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        logprobs=True,
        top_logprobs=2,
        max_tokens=6,
        stream_options={"include_usage": True},
    )
    text, tokens, usage = "", [], 0
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            tokens += choice.logprobs.content or [] if choice.logprobs else []
        usage = chunk.usage.completion_tokens if chunk.usage else usage
    assert usage == len(tokens) == 6
    assert b"".join(bytes(token.bytes or []) for token in tokens).decode("utf-8", "replace").startswith(text)
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


def test_openais_responses_stream_a_function_call(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(
        model="tiny",
        input=QUESTION,
        tools=[{"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}],
        tool_choice="required",
        max_output_tokens=60,
    ) as stream:
        for _ in stream:
            pass
        response = stream.get_final_response()
    (call,) = response.output
    assert call.type == "function_call"
    assert (call.name, call.status) == ("get_weather", "completed")


def test_anthropics_stream_calls_a_tool(anthropic_client: anthropic.Anthropic) -> None:
    with anthropic_client.messages.stream(
        model="tiny",
        max_tokens=60,
        messages=[{"role": "user", "content": QUESTION}],
        tools=[{"name": "get_weather", "input_schema": SCHEMA}],
        tool_choice={"type": "any"},
    ) as stream:
        message = stream.get_final_message()
    (block,) = message.content
    assert block.type == "tool_use"
    assert block.input["city"] in ("Paris", "Rome")
    assert (message.stop_reason, message.usage.output_tokens > 0) == ("tool_use", True)


def test_anthropics_client_without_tools(anthropic_client: anthropic.Anthropic) -> None:
    message = anthropic_client.messages.create(
        model="tiny", max_tokens=5, system="Be brief.", messages=[{"role": "user", "content": "Hi"}]
    )
    assert message.stop_reason == "max_tokens"
    assert message.content[0].type == "text"


def test_ollamas_client_gets_a_format_and_logprobs(runner: ServedRunner) -> None:
    with ollama.Client(f"http://127.0.0.1:{runner.port}") as client:
        answer = client.chat(
            "tiny", [{"role": "user", "content": QUESTION}], format=SCHEMA, logprobs=True, options={"num_predict": 30}
        )
    assert answer.message.content is not None
    assert json.loads(answer.message.content)["city"] in ("Paris", "Rome")
    assert answer.logprobs
    assert "".join(token.token for token in answer.logprobs).startswith(answer.message.content)
