"""Endpoint ``/v1/chat/completions`` of OpenAI's API, mapped to a chat as Ollama maps it.

Source: ``FromChatRequest`` in Ollama's ``openai/openai.go`` and ``middleware/openai.go``. Two fields that Ollama
ignores are applied: ``max_completion_tokens`` and ``tool_choice``. Other fields, such as ``n``, are ignored here too.
"""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from corral_server.runner.api.generation import GenerationResponse, chat_job
from corral_server.runner.api.openai.chat_encoder import ChatCompletionEncoder
from corral_server.runner.api.openai.request_parts import (
    checked_chat,
    parse_arguments,
    parse_include_usage,
    parse_reasoning_effort,
    sampling_options,
)
from corral_server.runner.api.request_body import RequestFields, go_type_name, read_fields
from corral_server.runner.api.response import request_start_ns
from corral_server.runner.api.shared_fields import data_url_image, parse_tools, parse_top_logprobs
from corral_server.runner.chat.generation_request import GenerationRequest
from corral_server.runner.chat.prompt_images import images_of
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.templates.templates import Message
from corral_server.wire.errors import ApiError

CHAT_COMPLETIONS = "/v1/chat/completions"

_INVALID_PART = "invalid message format"


class ChatCompletionsEndpoint:
    """The endpoint of one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def chat(self, request: Request) -> Response:
        requested_ns = request_start_ns(request.headers)
        fields = await read_fields(request, "ChatCompletionRequest", package="openai")
        chat, loaded = checked_chat(
            self._state,
            fields,
            _generation_request(fields),
            messages=_parse_messages(fields),
            tools=parse_tools(fields),
            without_messages="[] is too short - 'messages'",
        )
        encoder = ChatCompletionEncoder(chat.generation.model, include_usage=parse_include_usage(fields))
        job = chat_job(CHAT_COMPLETIONS, requested_ns, chat, loaded=loaded, encoder=encoder)
        return GenerationResponse(self._state, job)


def _generation_request(fields: RequestFields) -> GenerationRequest:
    return GenerationRequest(
        model=fields.string("model"),
        stream=fields.boolean("stream") or False,
        think=parse_reasoning_effort(
            fields.nested("reasoning", "Reasoning").string("effort") or fields.string("reasoning_effort")
        ),
        response_format=_response_format(fields),
        options=sampling_options(fields),
        logprobs=fields.boolean("logprobs") or False,
        top_logprobs=parse_top_logprobs(fields),
    )


def _response_format(fields: RequestFields) -> object:
    """Map ``response_format`` to Ollama's ``format``."""
    response_format = fields.nested("response_format", "ResponseFormat")
    kind = response_format.string("type").strip().lower()
    if kind == "json_object":
        return "json"
    return response_format.nested("json_schema", "JsonSchema").value("schema") if kind == "json_schema" else None


def _parse_messages(fields: RequestFields) -> list[Message]:
    """Convert the messages. Each part of a content becomes a message of its own, as in Ollama's ``FromChatRequest``.

    The parts of a message with an image become one message. The calls of a message with parts belong to the last of
    them. Raises ApiError 400 with Ollama's texts, also for a message without content and without ``tool_calls``.
    """
    messages: list[Message] = []
    for item in fields.objects("messages", "Message"):
        role, content = item.string("role").lower(), item.value("content")
        if isinstance(content, list):
            if not all(isinstance(part, dict) for part in content):
                raise ApiError(400, _INVALID_PART)
            parts = [_part_message(role, part) for part in item.objects("content", "ContentPart")]
            messages.extend(_with_images(parts) if images_of(parts) else parts)
            if messages and item.array("tool_calls"):
                messages[-1] = {**messages[-1], **dict(_optional_members(item))}
        elif isinstance(content, str) or "tool_calls" in item:
            text = content if isinstance(content, str) else ""
            messages.append({"role": role, "content": text, **dict(_optional_members(item))})
        else:
            raise ApiError(400, f"invalid message content type: {go_type_name(content)}")
    return messages


def _with_images(parts: list[Message]) -> list[Message]:
    """Join the parts of a message with images to one message: many templates have no place for two of one role.

    As in llama.cpp, a line break separates two texts, and nothing a text and an image (``common/chat.cpp``).
    """
    content, after_text = "", False
    for part in parts:
        is_text = "images" not in part
        content += f"\n{part['content']}" if is_text and after_text else f"{part['content']}"
        after_text = is_text
    return [{**parts[0], "content": content, "images": list(images_of(parts))}]


def _part_message(role: str, part: RequestFields) -> Message:
    kind = part.value("type")
    if kind == "text" and isinstance(part.value("text"), str):
        return {"role": role, "content": part.string("text")}
    if kind == "image_url" and "image_url" in part:
        link = part.value("image_url")
        url = link if isinstance(link, str) else part.nested("image_url", "ImageURL").string("url")
        image = data_url_image(url)
        return {"role": role, "content": image.marker, "images": [image]}
    raise ApiError(400, _INVALID_PART)


def _optional_members(item: RequestFields) -> Iterator[tuple[str, object]]:
    for name in ("name", "tool_call_id"):
        if text := item.string(name):
            yield name, text
    if thinking := item.string("reasoning"):
        yield "thinking", thinking
    if calls := item.objects("tool_calls", "ToolCall"):
        yield "tool_calls", [_tool_call(call) for call in calls]


def _tool_call(call: RequestFields) -> dict[str, object]:
    """Raises ApiError 400 when the arguments are not a JSON object."""
    function = call.nested("function", "ToolCallFunction")
    arguments = parse_arguments(function.string("arguments"), "invalid tool call arguments")
    return {"id": call.string("id"), "function": {"name": function.string("name"), "arguments": arguments}}
