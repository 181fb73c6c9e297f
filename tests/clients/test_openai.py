"""PyPI's ``openai``: all methods for one Model, synchronous and asynchronous, whole and streamed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.clients.modes import Mode, answer, every_mode, parts, sync_and_async
from tests.clients.served_models import CHATS, CLEVER, EMBEDS, FUNCTION, SCHEMA, TOOL, WEATHER, WHERE
from tests.local.served import START, Served
from tests.support import minilm

pytestmark = pytest.mark.process

CITY = "What is the capital of France? Answer in one sentence."


class Both:
    """A synchronous client and a factory of asynchronous ones for one address."""

    def __init__(self, url: str) -> None:
        self._settings: dict[str, Any] = {
            "base_url": f"{url}/v1",
            "api_key": "none",
            "max_retries": 0,
            "timeout": START,
        }
        self.client = openai.OpenAI(**self._settings)

    def other(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._settings)

    def ask(self, asynchronous: bool, call: Callable[[Any], Any]) -> Any:
        return answer(asynchronous, self.client, self.other, call)

    def chat(self, mode: Mode, text: str, **arguments: object) -> Sequence[ChatCompletion | ChatCompletionChunk]:
        arguments = {"messages": [{"role": "user", "content": text}], "temperature": 0, **arguments}
        kind = ChatCompletionChunk if mode.stream else ChatCompletion
        return parts(
            mode,
            kind,
            self.client,
            self.other,
            lambda client, stream: client.chat.completions.create(stream=stream, **arguments),
        )

    def complete(self, mode: Mode, **arguments: object) -> Sequence[Completion]:
        return parts(
            mode,
            Completion,
            self.client,
            self.other,
            lambda client, stream: client.completions.create(stream=stream, temperature=0, **arguments),
        )


@pytest.fixture
def both(served: Served) -> Iterator[Both]:
    both = Both(served.url)
    with both.client:
        yield both


def messages(found: Sequence[ChatCompletion | ChatCompletionChunk]) -> list[Any]:
    """Return the messages, or the deltas of a stream."""
    return [
        message
        for part in found
        for message in (
            [choice.delta for choice in part.choices]
            if isinstance(part, ChatCompletionChunk)
            else [choice.message for choice in part.choices]
        )
    ]


def text_of(found: Sequence[ChatCompletion | ChatCompletionChunk], member: str = "content") -> str:
    return "".join(getattr(message, member, None) or "" for message in messages(found))


@every_mode
def test_chat(both: Both, mode: Mode) -> None:
    found = both.chat(mode, CITY, model=CHATS, max_tokens=12)
    assert "Paris" in text_of(found)
    assert len({part.id for part in found}) == len({part.created for part in found}) == 1
    assert {part.model for part in found} == {CHATS}
    assert found[-1].choices[0].finish_reason in ("stop", "length")
    roles = [message.role for message in messages(found)]
    assert roles == ["assistant", *[None] * (len(roles) - 1)]
    if not mode.stream:
        (whole,) = found
        assert whole.usage
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 10


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_usage_has_a_chunk_of_its_own(both: Both, asynchronous: bool) -> None:
    found = both.chat(
        Mode(asynchronous, stream=True), CITY, model=CHATS, max_tokens=4, stream_options={"include_usage": True}
    )
    *others, last = found
    assert last.choices == []
    assert last.usage
    assert last.usage.completion_tokens == 4
    assert all(part.usage is None and part.choices for part in others)


@every_mode
def test_chat_calls_a_tool(both: Both, mode: Mode) -> None:
    found = both.chat(mode, WEATHER, model=CLEVER, tools=[TOOL], max_tokens=40)
    calls = [call for message in messages(found) for call in message.tool_calls or []]
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("get_weather", {"city": "Rome"})
    ]
    assert found[-1].choices[0].finish_reason == "tool_calls"


@every_mode
def test_chat_separates_reasoning(both: Both, mode: Mode) -> None:
    found = both.chat(mode, WHERE, model=CLEVER, reasoning_effort="high", max_tokens=40)
    assert text_of(found, "reasoning") == "Rome is a city."
    assert text_of(found) == "Rome is in Italy."


@every_mode
def test_a_schema_is_enforced(both: Both, mode: Mode) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    found = both.chat(mode, WHERE, model=CHATS, response_format=wanted, max_tokens=40)
    assert isinstance(json.loads(text_of(found))["city"], str)


@every_mode
def test_logprobs(both: Both, mode: Mode) -> None:
    found = both.chat(mode, CITY, model=CHATS, max_tokens=4, logprobs=True, top_logprobs=2)
    tokens = [
        token for part in found for choice in part.choices if choice.logprobs for token in choice.logprobs.content or []
    ]
    assert len(tokens) == 4
    assert all(len(token.top_logprobs) == 2 for token in tokens)


@every_mode
def test_completions(both: Both, mode: Mode) -> None:
    found = both.complete(mode, model=CHATS, prompt=CITY, max_tokens=12)
    assert "Paris" in "".join(choice.text for part in found for choice in part.choices)
    assert {part.object for part in found} == {"text_completion"}


@sync_and_async
def test_a_response(both: Both, asynchronous: bool) -> None:
    said = both.ask(
        asynchronous,
        lambda client: client.responses.create(
            model=CLEVER, input=WHERE, temperature=0, max_output_tokens=40, reasoning={"effort": "high"}
        ),
    )
    assert (said.status, said.output_text) == ("completed", "Rome is in Italy.")
    assert [item.type for item in said.output] == ["reasoning", "message"]
    assert said.usage.output_tokens > 0


@every_mode
def test_a_response_calls_a_tool(both: Both, mode: Mode) -> None:
    tool = {"type": "function", **FUNCTION}
    found: Sequence[Any] = parts(
        mode,
        object,
        both.client,
        both.other,
        lambda client, stream: client.responses.create(
            model=CLEVER, input=WEATHER, tools=[tool], temperature=0, max_output_tokens=40, stream=stream
        ),
    )
    if mode.stream:
        assert [event.sequence_number for event in found] == list(range(len(found)))
        assert [event.type for event in found][:2] == ["response.created", "response.in_progress"]
        assert found[-1].type == "response.completed"
    (call,) = (found[-1].response if mode.stream else found[-1]).output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Rome"})


@pytest.mark.parametrize("encoding", ["base64", "float"])
@sync_and_async
def test_embeddings(both: Both, asynchronous: bool, encoding: str) -> None:
    said = both.ask(
        asynchronous,
        lambda client: client.embeddings.create(model=EMBEDS, input=["hello", "fox"], encoding_format=encoding),
    )
    assert [entry.index for entry in said.data] == [0, 1]
    vector = said.data[0].embedding
    if encoding == "base64":
        vector = np.frombuffer(base64.b64decode(vector), "<f4")
    assert float(np.asarray(vector, np.float32) @ minilm.reference_embedding("hello")) > 0.9999


@sync_and_async
def test_models(both: Both, asynchronous: bool) -> None:
    listed = both.ask(asynchronous, lambda client: client.models.list())
    assert {"tiny:latest", "smollm2:135m"} <= {model.id for model in listed.data}
    one = both.ask(asynchronous, lambda client: client.models.retrieve("TINY"))
    assert (one.id, one.object, one.owned_by) == ("TINY", "model", "library")


def ask_chat(model: str, **arguments: object) -> Callable[[Any], Any]:
    said = {"messages": [{"role": "user", "content": "hi"}], **arguments}
    return lambda client: client.chat.completions.create(model=model, **said)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (ask_chat("nope"), openai.NotFoundError, "model 'nope' not found"),
        (lambda client: client.completions.create(model="nope", prompt="a"), openai.NotFoundError, "'nope' not found"),
        (
            lambda client: client.embeddings.create(model="nope", input="a"),
            openai.NotFoundError,
            'model "nope" not found, try pulling it first',
        ),
        (lambda client: client.models.retrieve("nope"), openai.NotFoundError, "model 'nope:latest' not found"),
        (lambda client: client.responses.create(model="nope", input="a"), openai.NotFoundError, "'nope' not found"),
        (ask_chat(CHATS, messages=[]), openai.BadRequestError, r"\[\] is too short - 'messages'"),
        (ask_chat(CHATS, tools=[TOOL]), openai.BadRequestError, "library/tiny:latest does not support tools"),
        (ask_chat(CHATS, top_logprobs=21), openai.BadRequestError, "top_logprobs must be between 0 and 20"),
        (ask_chat(CHATS, reasoning_effort="high"), openai.BadRequestError, '"tiny" does not support thinking'),
        (ask_chat(EMBEDS), openai.BadRequestError, '"minilm" does not support chat'),
        (
            lambda client: client.embeddings.create(model=CHATS, input="a"),
            openai.InternalServerError,
            "This server does not support embeddings",
        ),
    ],
)
@sync_and_async
def test_errors(
    both: Both, asynchronous: bool, call: Callable[[Any], Any], error: type[openai.APIStatusError], text: str
) -> None:
    with pytest.raises(error, match=text) as raised:
        both.ask(asynchronous, call)
    kinds = {400: "invalid_request_error", 404: "not_found_error", 501: "api_error"}
    assert raised.value.type == kinds[raised.value.status_code]
