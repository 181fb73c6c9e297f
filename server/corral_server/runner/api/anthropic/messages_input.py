"""Conversion of Anthropic's content blocks and tools to messages and tools of a chat.

Source: ``FromMessagesRequest`` in Ollama's ``anthropic/anthropic.go``.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral_server.runner.api.request_body import RequestFields
from corral_server.runner.images.encoded import EncodedImage, text_with_images
from corral_server.runner.templates.templates import Message
from corral_server.runner.tool_calls.tool import AUTO_TOOL_CHOICE, Tool, ToolChoice, tool_name
from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import json_kind
from corral_server.wire.json_encoding import compact_json

_CALL_BLOCKS = ("tool_use", "server_tool_use")
_RESULT_BLOCKS = ("tool_result", "web_search_tool_result")
_CONTENT_ERROR = (
    "json: cannot unmarshal {} into Go struct field MessagesRequest.messages of type []anthropic.ContentBlock"
)


def parse_messages(fields: RequestFields) -> list[Message]:
    """Convert ``system`` and ``messages``. Raises ApiError 400 for an unknown type of content block."""
    system = _joined_text(fields, "system")
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for item in fields.objects("messages", "MessageParam"):
        messages.extend(_messages(item))
    return messages


def _messages(item: RequestFields) -> Iterator[Message]:
    """Convert one message. Each tool result becomes a message of its own, before the rest of the message."""
    role, content = item.string("role").lower(), item.value("content")
    if content is None or isinstance(content, str):
        yield {"role": role, "content": content or ""}
        return
    if not isinstance(content, list):
        raise ApiError(400, _CONTENT_ERROR.format(json_kind(content)))
    blocks = item.objects("content", "ContentBlock")
    yield from (_tool_result(block) for block in blocks if block.string("type") in _RESULT_BLOCKS)
    others = [block for block in blocks if block.string("type") not in _RESULT_BLOCKS]
    if others:
        yield _merge_blocks(role, others)


def _merge_blocks(role: str, blocks: list[RequestFields]) -> Message:
    texts, thoughts, images, calls = [], [], [], []
    for block in blocks:
        kind = block.string("type")
        if kind == "text":
            texts.append(block.string("text"))
        elif kind == "thinking":
            thoughts.append(block.string("thinking"))
        elif kind == "image":
            image = _image(block)
            images.append(image)
            texts.append(image.marker)
        elif kind in _CALL_BLOCKS:
            function = {"name": block.string("name"), "arguments": block.mapping("input")}
            calls.append({"id": block.string("id"), "function": function})
        elif kind != "redacted_thinking":
            raise ApiError(400, f"unsupported content block type: {kind[:64]}")
    parts = {"thinking": "".join(thoughts), "images": images, "tool_calls": calls}
    return {"role": role, "content": "".join(texts), **{name: part for name, part in parts.items() if part}}


def _tool_result(block: RequestFields) -> Message:
    content = block.value("content")
    if isinstance(content, list) and block.string("type") == "web_search_tool_result":
        text = compact_json(content)
    else:
        text = _joined_text(block, "content")
    images = list(_result_images(block))
    message = {"role": "tool", "content": text_with_images(text, images), "tool_call_id": block.string("tool_use_id")}
    return message | ({"images": images} if images else {})


def _result_images(block: RequestFields) -> Iterator[EncodedImage]:
    if isinstance(block.value("content"), list) and block.string("type") == "tool_result":
        for part in block.objects("content", "ContentBlock"):
            if part.string("type") == "image":
                yield _image(part)


def _image(block: RequestFields) -> EncodedImage:
    source = block.nested("source", "ImageSource")
    if source.string("type") != "base64":
        raise ApiError(
            400, f"invalid image source type: {source.string('type')[:64]}. Only base64 images are supported."
        )
    return EncodedImage(source.string("data"), "invalid base64 image data: {}")


def _joined_text(fields: RequestFields, name: str) -> str:
    """Return a field that is a string or an array of text blocks, as one string."""
    if not isinstance(fields.value(name), list):
        return fields.string(name)
    return "\n".join(block.string("text") for block in fields.objects(name, "ContentBlock") if "text" in block)


def parse_tools(fields: RequestFields) -> tuple[Tool, ...]:
    """Convert the client's tools. Tools that run on the server, such as a web search, are ignored."""
    return tuple(_tool(tool) for tool in fields.objects("tools", "Tool") if tool.string("type") in ("", "custom"))


def _tool(tool: RequestFields) -> Tool:
    function = {
        "name": tool.string("name"),
        "description": tool.string("description"),
        "parameters": tool.mapping("input_schema"),
    }
    return {"type": "function", "function": function}


def parse_tool_choice(fields: RequestFields, tools: tuple[Tool, ...]) -> ToolChoice:
    """Parse ``tool_choice``. One that names an unknown tool counts as ``auto``; Ollama ignores the field."""
    tool_choice = fields.nested("tool_choice", "ToolChoice")
    kind, name = tool_choice.string("type"), tool_choice.string("name")
    if kind == "none":
        return ToolChoice(none=True)
    if kind == "any" and tools:
        return ToolChoice(must_call=True)
    if kind == "tool" and any(tool_name(tool) == name for tool in tools):
        return ToolChoice(must_call=True, name=name)
    return AUTO_TOOL_CHOICE
