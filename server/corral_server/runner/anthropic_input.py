"""Anthropic's blocks as the messages and tools that chat templates take."""

from __future__ import annotations

from collections.abc import Iterator

from corral_server.runner.delta_json import compact
from corral_server.runner.requests import Fields
from corral_server.runner.templates import Message
from corral_server.runner.tools import AUTO, Choice, Tool, name_of
from corral_server.wire.errors import ApiError

_CALLS = ("tool_use", "server_tool_use")
_RESULTS = ("tool_result", "web_search_tool_result")


def messages_of(fields: Fields) -> list[Message]:
    """The system prompt first. Raises ApiError 400 for what is no block that there is."""
    system = _texts(fields, "system")
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for item in fields.objects("messages", "MessageParam"):
        messages.extend(_messages(item))
    return messages


def _messages(item: Fields) -> Iterator[Message]:
    """Results of tools become messages of their own, before the rest of the message that they are in."""
    role, content = item.text("role").lower(), item.raw("content")
    if not isinstance(content, list):
        yield {"role": role, "content": item.text("content")}
        return
    blocks = item.objects("content", "ContentBlock")
    yield from (_result(block) for block in blocks if block.text("type") in _RESULTS)
    others = [block for block in blocks if block.text("type") not in _RESULTS]
    if others:
        yield _joined(role, others)


def _joined(role: str, blocks: list[Fields]) -> Message:
    texts, thoughts, images, calls = [], [], [], []
    for block in blocks:
        kind = block.text("type")
        if kind == "text":
            texts.append(block.text("text"))
        elif kind == "thinking":
            thoughts.append(block.text("thinking"))
        elif kind == "image":
            images.append(_image(block))
        elif kind in _CALLS:
            function = {"name": block.text("name"), "arguments": block.mapping("input")}
            calls.append({"id": block.text("id"), "function": function})
        elif kind != "redacted_thinking":
            raise ApiError(400, f"unsupported content block type: {kind[:64]}")
    parts = {"thinking": "".join(thoughts), "images": images, "tool_calls": calls}
    return {"role": role, "content": "".join(texts), **{name: part for name, part in parts.items() if part}}


def _result(block: Fields) -> Message:
    content = block.raw("content")
    if isinstance(content, list) and block.text("type") == "web_search_tool_result":
        text = compact(content)
    else:
        text = _texts(block, "content")
    return {"role": "tool", "content": text, "tool_call_id": block.text("tool_use_id")}


def _image(block: Fields) -> str:
    source = block.sub("source", "ImageSource")
    if source.text("type") != "base64":
        raise ApiError(400, f"invalid image source type: {source.text('type')[:64]}. Only base64 images are supported.")
    return source.text("data")


def _texts(fields: Fields, name: str) -> str:
    """A text, or the texts of blocks."""
    if not isinstance(fields.raw(name), list):
        return fields.text(name)
    return "\n".join(block.text("text") for block in fields.objects(name, "ContentBlock") if "text" in block)


def tools_of(fields: Fields) -> tuple[Tool, ...]:
    """Tools that the server would have to run itself, such as a web search, are left out."""
    return tuple(_tool(tool) for tool in fields.objects("tools", "Tool") if tool.text("type") in ("", "custom"))


def _tool(tool: Fields) -> Tool:
    function = {
        "name": tool.text("name"),
        "description": tool.text("description"),
        "parameters": tool.mapping("input_schema"),
    }
    return {"type": "function", "function": function}


def choice_of(fields: Fields, tools: tuple[Tool, ...]) -> Choice:
    """``tool_choice``; one that names no tool there is lets the model choose, as in Ollama, which never reads it."""
    wanted = fields.sub("tool_choice", "ToolChoice")
    kind, name = wanted.text("type"), wanted.text("name")
    if kind == "none":
        return Choice(none=True)
    if kind == "any" and tools:
        return Choice(must_call=True)
    if kind == "tool" and any(name_of(tool) == name for tool in tools):
        return Choice(must_call=True, name=name)
    return AUTO
