"""``/v1/messages``: Anthropic's API in terms of a chat.

Headers for versions and authorization are not looked at. Thinking that is asked of a model that does not think is left
out without a word, as in Ollama.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner import capabilities
from corral_server.runner.answer import GenerationAnswer, started_at
from corral_server.runner.anthropic_input import choice_of, messages_of, tools_of
from corral_server.runner.anthropic_writer import AnthropicWriter
from corral_server.runner.capabilities import LEVELS, Think
from corral_server.runner.chat import Chat, chat_work, check_chat
from corral_server.runner.common import Common
from corral_server.runner.requests import MISSING_BODY_OPENAI, Fields, parse_body, read_body
from corral_server.runner.state import RunnerState
from corral_server.wire.errors import ApiError

MESSAGES = "/v1/messages"


class AnthropicApi:
    """The endpoint over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def messages(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(
            await read_body(request), kind="MessagesRequest", package="anthropic", missing=MISSING_BODY_OPENAI
        )
        model = _checked(fields)
        messages, tools = messages_of(fields), tools_of(fields)
        choice, think = choice_of(fields, tools), _think(fields)
        loaded = self._state.serving()
        common = Common(
            model=model,
            stream=fields.flag("stream") or False,
            think=think if "thinking" in loaded.facts.capabilities else None,
            wanted=_wanted(fields),
            options=_options(fields),
        )
        chat = Chat(common, messages, tools, choice)
        check_chat(chat, loaded)
        stop = [text for text in fields.items("stop_sequences") if isinstance(text, str)]
        work = chat_work(MESSAGES, started, chat, loaded=loaded, writer=AnthropicWriter(model, stop))
        return GenerationAnswer(self._state, work)


def _checked(fields: Fields) -> str:
    """The model's name, when everything is there that must be."""
    model, most = fields.text("model"), fields.integer("max_tokens")
    if not model:
        raise ApiError(400, "model is required")
    if most is None or most <= 0:
        raise ApiError(400, "max_tokens is required and must be positive")
    if not fields.items("messages", "[]anthropic.MessageParam"):
        raise ApiError(400, "messages is required")
    capabilities.check_name(model)
    return model


def _options(fields: Fields) -> dict[str, object]:
    """What is unset comes from the Model."""
    return {
        "num_predict": fields.integer("max_tokens"),
        "temperature": fields.number("temperature"),
        "top_p": fields.number("top_p"),
        "top_k": fields.integer("top_k"),
        "stop": fields.items("stop_sequences", "[]string") or None,
    }


def _think(fields: Fields) -> Think:
    kind = fields.sub("thinking", "ThinkingConfig").text("type")
    if kind == "disabled":
        return False
    effort = fields.sub("output_config", "OutputConfig").text("effort")
    return effort if effort in LEVELS else (True if kind == "enabled" else None)


def _wanted(fields: Fields) -> object:
    wanted = fields.sub("output_config", "OutputConfig").sub("format", "OutputFormat")
    return wanted.raw("schema") if wanted.text("type") == "json_schema" else None
