"""Conversion of the input items and tools of OpenAI's responses API to messages and tools of a chat.

Source: ``FromResponsesRequest`` in Ollama's ``openai/responses.go``.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral_server.runner.api.openai.request_parts import parse_arguments
from corral_server.runner.api.request_body import RequestFields
from corral_server.runner.api.shared_fields import data_url_image
from corral_server.runner.images.encoded import EncodedImage, text_with_images
from corral_server.runner.templates.templates import Message
from corral_server.runner.tool_calls.tool import Tool
from corral_server.wire.errors import ApiError

_TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal")


def parse_messages(fields: RequestFields) -> list[Message]:
    """Convert ``instructions`` and ``input``.

    Reasoning, text and function calls that follow one another become one message of the assistant.
    """
    instructions = fields.string("instructions")
    messages: list[dict[str, object]] = [{"role": "system", "content": instructions}] if instructions else []
    if not isinstance(fields.value("input"), list):
        text = fields.string("input")
        return [*messages, *([{"role": "user", "content": text}] if text else [])]
    first = len(messages)
    for item in fields.objects("input", "ResponsesInputItem"):
        _add_item(item, messages, first)
    return [*messages]


def _add_item(item: RequestFields, messages: list[dict[str, object]], first: int) -> None:
    """Add one item to ``messages``, of which those before index ``first`` were not made from items."""
    kind = item.string("type") or "message"
    if kind == "message":
        _add_message(item, messages, first)
    elif kind == "reasoning":
        thinking = _joined_text(item, "summary") or _joined_text(item, "content")
        messages.append({"role": "assistant", "content": "", "thinking": thinking})
    elif kind == "function_call":
        calls = _assistant_message(messages, first).setdefault("tool_calls", [])
        assert isinstance(calls, list), "set by setdefault"
        calls.append(_function_call(item))
    elif kind == "function_call_output":
        messages.append(
            {"role": "tool", "content": _joined_text(item, "output"), "tool_call_id": item.string("call_id")}
        )
    elif kind != "web_search_call":
        raise ApiError(400, f"unsupported input item type: {kind[:64]}")


def _add_message(item: RequestFields, messages: list[dict[str, object]], first: int) -> None:
    role = item.string("role").lower()
    text, images = _joined_text(item, "content"), list(_images(item))
    if role == "assistant" and len(messages) > first and _has_only_reasoning(messages[-1]):
        messages[-1]["content"] = text
        return
    message: dict[str, object] = {"role": "system" if role == "developer" else role}
    message["content"] = text_with_images(text, images)
    messages.append(message | ({"images": images} if images else {}))


def _has_only_reasoning(message: dict[str, object]) -> bool:
    """Return whether it is a message of the assistant that has only reasoning so far."""
    return message["role"] == "assistant" and not message["content"] and "tool_calls" not in message


def _assistant_message(messages: list[dict[str, object]], first: int) -> dict[str, object]:
    """Return the message of the assistant that following items extend; append one if there is none."""
    if len(messages) <= first or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _function_call(item: RequestFields) -> dict[str, object]:
    """Raises ApiError 400 when the arguments are not a JSON object."""
    arguments = parse_arguments(item.string("arguments"), "invalid function_call arguments")
    return {"id": item.string("call_id"), "function": {"name": item.string("name"), "arguments": arguments}}


def _joined_text(item: RequestFields, name: str) -> str:
    """Return a field that is a string or an array of text parts, as one string."""
    if not isinstance(item.value(name), list):
        return item.string(name)
    parts = item.objects(name, "ResponsesContent")
    return "".join(
        part.string("refusal" if "refusal" in part else "text") for part in parts if part.string("type") in _TEXT_PARTS
    )


def _images(item: RequestFields) -> Iterator[EncodedImage]:
    if isinstance(item.value("content"), list):
        for part in item.objects("content", "ResponsesContent"):
            if part.string("type") == "input_image":
                yield data_url_image(part.string("image_url"))


def parse_tools(fields: RequestFields) -> tuple[Tool, ...]:
    """Convert the function tools, also those in a namespace. Tools that run on the server are ignored."""
    return tuple(_functions(fields.objects("tools", "ResponsesTool")))


def _functions(tools: list[RequestFields]) -> Iterator[Tool]:
    for tool in tools:
        kind = tool.string("type")
        if kind == "namespace":
            yield from _functions([inner for inner in tool.objects("tools", "ResponsesTool") if _is_function(inner)])
        elif kind == "function":
            names = {"name": tool.string("name"), "description": tool.string("description")}
            yield {"type": "function", "function": {**names, "parameters": tool.mapping("parameters")}}


def _is_function(tool: RequestFields) -> bool:
    return tool.string("type") == "function"
