"""Response encoder of ``/v1/chat/completions``: server-sent events, or one ``chat.completion`` object.

Source: OpenAI's API reference, "Chat completions"; the fields and their values are those of Ollama's
``openai/openai.go``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from json.encoder import encode_basestring

from corral_server.runner.api.encoding import arguments_json
from corral_server.runner.api.generation import ResponseEncoder
from corral_server.runner.api.openai.response_parts import (
    DONE,
    FINGERPRINT,
    chunk_event,
    logprobs_member,
    usage_object,
)
from corral_server.runner.api.response import RequestTimes
from corral_server.runner.chat.delta import Delta, ToolCall
from corral_server.runner.engine.generation import GenerationResult
from corral_server.wire.event_stream import EVENT_STREAM
from corral_server.wire.json_encoding import compact_json


class ChatCompletionEncoder(ResponseEncoder):
    """All chunks of a stream have the same ``created`` and ``id``; the role is in the first delta only."""

    media_type = EVENT_STREAM

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._id = f"chatcmpl-{secrets.randbelow(999)}"
        self._model = model
        self._created = int(time.time())
        self._include_usage = include_usage
        self._head = (
            f'data: {compact_json(self._object("chat.completion.chunk"))[:-1]},"choices":[{{"index":0,"delta":{{'
        )
        self._role = '"role":"assistant",'
        self._has_tool_calls = False

    def encode_chunk(self, delta: Delta) -> bytes:
        """Encode reasoning, content and tool calls as one chunk each; logprobs are in the first of them."""
        parts = [("reasoning", encode_basestring(delta.thinking))] if delta.thinking else []
        if delta.content:
            parts.append(("content", encode_basestring(delta.content)))
        if delta.tool_calls:
            self._has_tool_calls = True
            parts.append(("tool_calls", compact_json(_tool_calls(delta.tool_calls))))
        logprobs = compact_json(logprobs_member(delta))[1:-1] if delta.logprobs else ""
        first, *others = parts or [("content", '""')]
        return b"".join((self._chunk(*first, logprobs=logprobs), *(self._chunk(*other) for other in others)))

    def encode_end(self, result: GenerationResult, times: RequestTimes) -> bytes:
        first = self._chunk("content", '""') if self._role else b""
        choice = {"index": 0, "delta": {}, "finish_reason": _finish_reason(result, self._has_tool_calls)}
        parts = [first, chunk_event(self._object("chat.completion.chunk") | {"choices": [choice]})]
        if self._include_usage:
            parts.append(
                chunk_event(self._object("chat.completion.chunk") | {"choices": [], "usage": usage_object(result)})
            )
        return b"".join((*parts, DONE))

    def encode_whole(self, delta: Delta, result: GenerationResult, times: RequestTimes) -> bytes:
        message: dict[str, object] = {"role": "assistant", "content": delta.content}
        if delta.thinking:
            message["reasoning"] = delta.thinking
        if delta.tool_calls:
            message["tool_calls"] = _tool_calls(delta.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": _finish_reason(result, bool(delta.tool_calls))}
        choice |= logprobs_member(delta)
        body = self._object("chat.completion") | {"choices": [choice], "usage": usage_object(result)}
        return compact_json(body).encode()

    def _chunk(self, name: str, value: str, *, logprobs: str = "") -> bytes:
        role, self._role = self._role, ""
        more = f",{logprobs}" if logprobs else ""
        return f'{self._head}{role}"{name}":{value}}},"finish_reason":null{more}}}]}}\n\n'.encode()

    def _object(self, kind: str) -> dict[str, object]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
        }


def _finish_reason(result: GenerationResult, called: bool) -> str:
    return "tool_calls" if called and result.reason == "stop" else result.reason


def _tool_calls(calls: Iterable[ToolCall]) -> list[dict[str, object]]:
    return [
        {
            "id": call.id,
            "index": call.index,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_json(call)},
        }
        for call in calls
    ]
