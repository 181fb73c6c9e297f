"""``/v1/chat/completions``: OpenAI's chat in terms of the native one, as Ollama's compatibility layer does it.

``max_completion_tokens``, ``tool_choice``, ``n`` and whatever else Ollama does not read are ignored here too.
"""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner import capabilities
from corral_server.runner.answer import GenerationAnswer, Work, started_at
from corral_server.runner.generation import Task
from corral_server.runner.native import Common, chat_task
from corral_server.runner.openai_writer import OpenAIWriter
from corral_server.runner.reading import Reading
from corral_server.runner.requests import MISSING_BODY_OPENAI, Fields, parse_body, read_body
from corral_server.runner.state import Loaded, RunnerState
from corral_server.runner.templates import Message
from corral_server.wire.errors import ApiError

CHAT = "/v1/chat/completions"

_OPTIONS = {"seed": "seed", "max_tokens": "num_predict"}
_NUMBERS = ("frequency_penalty", "presence_penalty")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")
_URL_IMAGE = "image URLs are not currently supported, please use base64 encoded data instead"


class OpenAIApi:
    """The endpoint over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def chat(self, request: Request) -> Response:
        started = started_at(request.headers)
        fields = parse_body(await read_body(request), kind="ChatCompletionRequest", missing=MISSING_BODY_OPENAI)
        model, messages = fields.text("model"), _messages(fields)
        common = _common(fields, model)
        if not model:
            raise ApiError(400, "model is required")
        capabilities.check_name(model)
        if not messages:
            raise ApiError(400, "[] is too short - 'messages'")
        if fields.items("tools"):
            capabilities.refuse_tools(model)
        loaded = self._state.serving()
        capabilities.check_completion(loaded.facts, model, "chat")
        capabilities.check_think(common.think, model, loaded.facts)
        capabilities.check_logprobs(fields, model)
        if any(message.get("images") for message in messages):
            capabilities.refuse_images(model)
        options = loaded.options.updated(common.options)

        def prepare(loaded: Loaded) -> Task:
            return chat_task(loaded, messages, common, options=options)

        usage = fields.sub("stream_options", "StreamOptions").flag("include_usage") or False
        reading = Reading(loaded.template.source, thinks=capabilities.thinks(common.think, loaded.facts))
        writer = OpenAIWriter(model, include_usage=usage)
        return GenerationAnswer(self._state, Work(CHAT, started, None, common.stream, prepare, writer, reading))


def _common(fields: Fields, model: str) -> Common:
    return Common(
        model=model,
        stream=fields.flag("stream") or False,
        keep_alive=None,
        think=_think(fields),
        truncate=True,
        shift=True,
        wanted=_wanted(fields),
        options=_options(fields),
    )


def _options(fields: Fields) -> dict[str, object]:
    """OpenAI's sampling fields as native options; temperature and top_p are 1 when unset, whatever the Model says."""
    options: dict[str, object] = {own: fields.integer(name) for name, own in _OPTIONS.items()}
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


def _think(fields: Fields) -> bool | None:
    effort = fields.sub("reasoning", "Reasoning").text("effort") or fields.text("reasoning_effort")
    if not effort:
        return None
    if effort not in _EFFORTS:
        raise ApiError(400, f'invalid reasoning value: "{effort}" (must be "high", "medium", "low", "max", or "none")')
    return effort != "none"


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
            raise ApiError(400, f"invalid message content type: {_GO_TYPES[type(content)]}")
    return messages


def _part(role: str, part: Fields) -> Message:
    kind = part.text("type")
    if kind == "text":
        return {"role": role, "content": part.text("text")}
    if kind == "image_url":
        link = part.raw("image_url")
        url = link if isinstance(link, str) else part.sub("image_url", "ImageURL").text("url")
        if url.startswith(("http://", "https://")):
            raise ApiError(400, _URL_IMAGE)
        return {"role": role, "content": "", "images": [url]}
    raise ApiError(400, "invalid message format")


def _extras(item: Fields) -> Iterator[tuple[str, object]]:
    for name in ("name", "tool_call_id"):
        if text := item.text(name):
            yield name, text
    if calls := item.items("tool_calls"):
        yield "tool_calls", [call for call in calls if isinstance(call, dict)]


_GO_TYPES = {bool: "bool", int: "float64", float: "float64", dict: "map[string]interface {}"}
