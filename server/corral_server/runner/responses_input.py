"""The items of OpenAI's responses API as the messages and tools that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Iterator

from corral_server.runner.requests import Fields
from corral_server.runner.templates import Message
from corral_server.runner.tools import Tool
from corral_server.wire.errors import ApiError

_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal")


def messages_of(fields: Fields) -> list[Message]:
    """Instructions first. Reasoning and calls go into one message with the answer that they belong to."""
    instructions = fields.text("instructions")
    messages: list[dict[str, object]] = [{"role": "system", "content": instructions}] if instructions else []
    if not isinstance(fields.raw("input"), list):
        text = fields.text("input")
        return [*messages, *([{"role": "user", "content": text}] if text else [])]
    own = len(messages)
    for item in fields.objects("input", "ResponsesInputItem"):
        _add(item, messages, own)
    return [*messages]


def _add(item: Fields, messages: list[dict[str, object]], own: int) -> None:
    """``own`` messages were not made from items."""
    kind = item.text("type") or "message"
    if kind == "message":
        _add_message(item, messages, own)
    elif kind == "reasoning":
        thinking = _text(item, "summary") or _text(item, "content")
        messages.append({"role": "assistant", "content": "", "thinking": thinking})
    elif kind == "function_call":
        calls = _answer(messages, own).setdefault("tool_calls", [])
        assert isinstance(calls, list), "made here"
        calls.append(_call(item))
    elif kind == "function_call_output":
        messages.append({"role": "tool", "content": _text(item, "output"), "tool_call_id": item.text("call_id")})
    elif kind != "web_search_call":
        raise ApiError(400, f"unsupported input item type: {kind[:64]}")


def _add_message(item: Fields, messages: list[dict[str, object]], own: int) -> None:
    role = item.text("role").lower()
    text, images = _text(item, "content"), list(_images(item))
    if role == "assistant" and len(messages) > own and _unanswered(messages[-1]):
        messages[-1]["content"] = text
        return
    message: dict[str, object] = {"role": "system" if role == "developer" else role, "content": text}
    messages.append(message | ({"images": images} if images else {}))


def _unanswered(message: dict[str, object]) -> bool:
    """Whether it is an assistant's message that has nothing but reasoning yet."""
    return message["role"] == "assistant" and not message["content"] and "tool_calls" not in message


def _answer(messages: list[dict[str, object]], own: int) -> dict[str, object]:
    """The assistant's message that is being put together."""
    if len(messages) <= own or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _call(item: Fields) -> dict[str, object]:
    try:
        arguments = json.loads(item.text("arguments") or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(400, "invalid function_call arguments")
    return {"id": item.text("call_id"), "function": {"name": item.text("name"), "arguments": arguments}}


def _text(item: Fields, name: str) -> str:
    """A text, or the texts of parts."""
    if not isinstance(item.raw(name), list):
        return item.text(name)
    parts = item.objects(name, "ResponsesContent")
    return "".join(
        part.text("refusal" if "refusal" in part else "text") for part in parts if part.text("type") in _TEXTS
    )


def _images(item: Fields) -> Iterator[str]:
    if isinstance(item.raw("content"), list):
        for part in item.objects("content", "ResponsesContent"):
            if part.text("type") == "input_image":
                yield part.text("image_url")


def tools_of(fields: Fields) -> tuple[Tool, ...]:
    """Functions, also those in a namespace; tools that the server would have to run itself are left out."""
    return tuple(_functions(fields.objects("tools", "ResponsesTool")))


def _functions(tools: list[Fields]) -> Iterator[Tool]:
    for tool in tools:
        kind = tool.text("type")
        if kind == "namespace":
            yield from _functions([inner for inner in tool.objects("tools", "ResponsesTool") if _is_function(inner)])
        elif kind == "function":
            names = {"name": tool.text("name"), "description": tool.text("description")}
            yield {"type": "function", "function": {**names, "parameters": tool.mapping("parameters")}}


def _is_function(tool: Fields) -> bool:
    return tool.text("type") == "function"
