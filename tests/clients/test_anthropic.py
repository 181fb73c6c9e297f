"""PyPI's ``anthropic``: messages, synchronous and asynchronous, whole and streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message

from tests.clients.modes import Mode, answer, every_mode, sync_and_async
from tests.clients.served_models import CHATS, CLEVER, SCHEMA, WEATHER, WHERE
from tests.local.served import START, Served

pytestmark = pytest.mark.process

TOOL = {"name": "get_weather", "description": "The weather in a city", "input_schema": SCHEMA}


class Both:
    """A synchronous client and a factory of asynchronous ones for one address."""

    def __init__(self, url: str) -> None:
        self._settings: dict[str, Any] = {"base_url": url, "api_key": "none", "max_retries": 0, "timeout": START}
        self.client = anthropic.Anthropic(**self._settings)

    def other(self) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(**self._settings)

    def ask(self, asynchronous: bool, call: Callable[[Any], Any]) -> Any:
        return answer(asynchronous, self.client, self.other, call)

    def message(self, mode: Mode, text: str, **arguments: object) -> Message:
        """Return the whole message, or the one that the client assembles from the events of a stream."""
        said = {"max_tokens": 40, "messages": [{"role": "user", "content": text}], **arguments}

        def at_once(client: Any) -> Any:
            if not mode.stream:
                return client.messages.create(**said)
            with client.messages.stream(**said) as stream:
                return stream.get_final_message()

        async def asynchronous(client: Any) -> Any:
            if not mode.stream:
                return await client.messages.create(**said)
            async with client.messages.stream(**said) as stream:
                return await stream.get_final_message()

        found = self.ask(mode.asynchronous, asynchronous if mode.asynchronous else at_once)
        assert isinstance(found, Message)
        return found


@pytest.fixture
def both(served: Served) -> Iterator[Both]:
    both = Both(served.url)
    with both.client:
        yield both


@every_mode
def test_a_message(both: Both, mode: Mode) -> None:
    said = both.message(mode, "What is the capital of France?", model=CHATS, system="Answer in one word.", max_tokens=8)
    (block,) = said.content
    assert block.type == "text"
    assert "Paris" in block.text
    assert said.stop_reason in ("end_turn", "max_tokens")
    assert said.model == CHATS
    assert said.usage.input_tokens > 0 < said.usage.output_tokens


@sync_and_async
def test_counted_tokens_are_those_of_the_message(both: Both, asynchronous: bool) -> None:
    asked: dict[str, Any] = {"model": CLEVER, "messages": [{"role": "user", "content": WEATHER}], "tools": [TOOL]}
    counted = both.ask(asynchronous, lambda client: client.messages.count_tokens(**asked))
    said = both.message(Mode(False, False), "", max_tokens=1, **asked)
    assert counted.input_tokens == said.usage.input_tokens > 20


@every_mode
def test_a_stop_sequence_is_reported(both: Both, mode: Mode) -> None:
    message = both.message(mode, "Count: one, two, three", model=CHATS, stop_sequences=["o", "e"])
    assert message.stop_reason == "stop_sequence"
    assert message.stop_sequence in ("o", "e")


@every_mode
def test_a_tool_is_called(both: Both, mode: Mode) -> None:
    said = both.message(mode, WEATHER, model=CLEVER, tools=[TOOL])
    (block,) = said.content
    assert block.type == "tool_use"
    assert (block.name, block.input, said.stop_reason) == ("get_weather", {"city": "Rome"}, "tool_use")


@every_mode
def test_thinking_is_a_block_before_the_text(both: Both, mode: Mode) -> None:
    said = both.message(mode, WHERE, model=CLEVER, thinking={"type": "enabled", "budget_tokens": 1024})
    thought, text = said.content
    assert thought.type == "thinking"
    assert text.type == "text"
    assert (thought.thinking, text.text) == ("Rome is a city.", "Rome is in Italy.")


@every_mode
def test_thinking_is_ignored_for_a_model_without_thinking(both: Both, mode: Mode) -> None:
    said = both.message(mode, "hi", model=CHATS, max_tokens=4, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in said.content] == ["text"]


def test_a_tool_result_is_used(both: Both) -> None:
    asked = both.message(Mode(False, False), WEATHER, model=CLEVER, tools=[TOOL])
    (call,) = asked.content
    assert call.type == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    history = [
        {"role": "user", "content": WEATHER},
        {"role": "assistant", "content": [call.model_dump(include={"type", "id", "name", "input"})]},
        {"role": "user", "content": [result]},
    ]
    said = both.message(Mode(False, False), "", model=CLEVER, messages=history, thinking={"type": "disabled"})
    assert said.content[0].type == "text"
    assert "sunny" in said.content[0].text


@sync_and_async
def test_models(both: Both, asynchronous: bool) -> None:
    """The list of models has OpenAI's format, as in Ollama."""
    listed = both.ask(asynchronous, lambda client: client.models.list())
    assert "tiny:latest" in {model.id for model in listed.data}


@pytest.mark.parametrize(
    ("arguments", "error", "kind", "text"),
    [
        ({"model": "nope"}, anthropic.NotFoundError, "not_found_error", "model 'nope' not found"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error", "messages is required"),
        (
            {"max_tokens": 0},
            anthropic.BadRequestError,
            "invalid_request_error",
            "max_tokens is required and must be positive",
        ),
        (
            {"tools": [TOOL]},
            anthropic.BadRequestError,
            "invalid_request_error",
            "registry.ollama.ai/library/tiny:latest does not support tools",
        ),
    ],
)
@every_mode
def test_errors(
    both: Both,
    mode: Mode,
    arguments: dict[str, object],
    error: type[anthropic.APIStatusError],
    kind: str,
    text: str,
) -> None:
    with pytest.raises(error, match=text) as raised:
        both.message(mode, "hi", **{"model": CHATS, **arguments})
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["error"] == {"type": kind, "message": text}
    assert raised.value.body["request_id"].startswith("req_")
