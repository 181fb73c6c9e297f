"""``/v1/chat/completions``: OpenAI's chat in terms of the native one, as Ollama's compatibility layer does it.

``max_completion_tokens`` and ``tool_choice`` are heeded, other than in Ollama; ``n`` and the like are ignored here too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner import capabilities
from corral_server.runner.answer import GenerationAnswer, started_at
from corral_server.runner.capabilities import Think
from corral_server.runner.chat import Chat, chat_work, check_chat
from corral_server.runner.common import Common
from corral_server.runner.openai_writer import OpenAIWriter
from corral_server.runner.requests import MISSING_BODY_OPENAI, Fields, go_type, parse_body, read_body
from corral_server.runner.state import RunnerState
from corral_server.runner.templates import Message
from corral_server.runner.tools import choice_of, tools_of
from corral_server.wire.errors import ApiError

CHAT = "/v1/chat/completions"

_OPTIONS = {"seed": "seed", "max_tokens": "num_predict"}
_NUMBERS = ("frequency_penalty", "presence_penalty")
_EFFORTS: Mapping[str, Think] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
    "ultra": "max",
}
_URL_IMAGE = "image URLs are not currently supported, please use base64 encoded data instead"

_IMAGES = (*(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")), "data:;base64,")


class OpenAIApi:
    """The endpoint over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def chat(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(
            await read_body(request), kind="ChatCompletionRequest", package="openai", missing=MISSING_BODY_OPENAI
        )
        model, messages = fields.text("model"), _messages(fields)
        tools = tools_of(fields)
        chat = Chat(_common(fields, model), messages, tools, choice_of(fields.raw("tool_choice"), tools))
        if not model:
            raise ApiError(400, "model is required")
        capabilities.check_name(model)
        if not messages:
            raise ApiError(400, "[] is too short - 'messages'")
        loaded = self._state.serving()
        check_chat(chat, loaded)
        usage = fields.sub("stream_options", "StreamOptions").flag("include_usage") or False
        writer = OpenAIWriter(model, include_usage=usage)
        return GenerationAnswer(self._state, chat_work(CHAT, started, chat, loaded=loaded, writer=writer))


def _common(fields: Fields, model: str) -> Common:
    return Common(
        model=model,
        stream=fields.flag("stream") or False,
        think=think_of(fields.sub("reasoning", "Reasoning").text("effort") or fields.text("reasoning_effort")),
        wanted=_wanted(fields),
        options=options_of(fields),
        logprobs=fields.flag("logprobs") or False,
        top_logprobs=capabilities.top_logprobs_of(fields),
    )


def options_of(fields: Fields) -> dict[str, object]:
    """OpenAI's sampling fields as native options; temperature and top_p are 1 when unset, whatever the Model says."""
    options: dict[str, object] = {own: fields.integer(name) for name, own in _OPTIONS.items()}
    if options["num_predict"] is None:
        options["num_predict"] = fields.integer("max_completion_tokens")
    options |= {name: fields.number(name) for name in _NUMBERS}
    for name in ("temperature", "top_p"):
        value = fields.number(name)
        options[name] = 1.0 if value is None else value
    stop = fields.raw("stop")
    if isinstance(stop, str):
        options["stop"] = [stop]
    elif isinstance(stop, list):
        options["stop"] = [item for item in stop if isinstance(item, str)]
    return options


def _wanted(fields: Fields) -> object:
    """``response_format`` as the native format."""
    wanted = fields.sub("response_format", "ResponseFormat")
    kind = wanted.text("type").strip().lower()
    if kind == "json_object":
        return "json"
    return wanted.sub("json_schema", "JsonSchema").raw("schema") if kind == "json_schema" else None


def think_of(effort: str) -> Think:
    """OpenAI's effort in the levels that the models know. Raises ApiError 400."""
    if not effort:
        return None
    if effort not in _EFFORTS:
        raise ApiError(400, f'invalid reasoning value: "{effort}" (must be "high", "medium", "low", "max", or "none")')
    return _EFFORTS[effort]


def _messages(fields: Fields) -> list[Message]:
    """Every part of a content in parts becomes a message of its own, as in Ollama."""
    messages: list[Message] = []
    for item in fields.objects("messages", "Message"):
        role, content = item.text("role").lower(), item.raw("content")
        if isinstance(content, list):
            messages.extend(_part(role, part) for part in item.objects("content", "ContentPart"))
        elif content is None or isinstance(content, str):
            messages.append({"role": role, "content": content or "", **dict(_extras(item))})
        else:
            raise ApiError(400, f"invalid message content type: {go_type(content)}")
    return messages


def _part(role: str, part: Fields) -> Message:
    kind = part.text("type")
    if kind == "text" and isinstance(part.raw("text"), str):
        return {"role": role, "content": part.text("text")}
    if kind == "image_url" and "image_url" in part:
        link = part.raw("image_url")
        url = link if isinstance(link, str) else part.sub("image_url", "ImageURL").text("url")
        if url.startswith(("http://", "https://")):
            raise ApiError(400, _URL_IMAGE)
        if not url.startswith(_IMAGES):
            raise ApiError(400, "invalid image input")
        return {"role": role, "content": "", "images": [url]}
    raise ApiError(400, "invalid message format")


def _extras(item: Fields) -> Iterator[tuple[str, object]]:
    for name in ("name", "tool_call_id"):
        if text := item.text(name):
            yield name, text
    if thinking := item.text("reasoning"):
        yield "thinking", thinking
    if calls := item.objects("tool_calls", "ToolCall"):
        yield "tool_calls", [_call(call) for call in calls]


def _call(call: Fields) -> dict[str, object]:
    """Raises ApiError 400 when the arguments are no JSON object."""
    function = call.sub("function", "ToolCallFunction")
    text = function.text("arguments")
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(400, "invalid tool call arguments")
    return {"id": call.text("id"), "function": {"name": function.text("name"), "arguments": arguments}}
