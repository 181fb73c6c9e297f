"""Response encoder of ``/v1/messages``: blocks of thinking, text and tool use, streamed as events or in one message.

Source: Anthropic's API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from json.encoder import encode_basestring

from corral_server.runner.api.encoding import arguments_json
from corral_server.runner.api.generation import ResponseEncoder
from corral_server.runner.api.response import RequestTimes
from corral_server.runner.chat.delta import Delta, ToolCall
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.wire.event_stream import EVENT_STREAM, server_sent_event
from corral_server.wire.json_encoding import compact_json

_TEXT = ("text", "text", "text_delta")
_THINKING = ("thinking", "thinking", "thinking_delta")


class MessagesEncoder(ResponseEncoder):
    """Invariant: at most one content block is open, and ``_index`` is its number."""

    media_type = EVENT_STREAM

    def __init__(self, model: str, stop: Collection[str] = ()) -> None:
        """``stop`` are the request's stop sequences. Only these are reported; the Model's own are not."""
        self._stop_sequences = frozenset(stop)
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model = model
        self._prompt_tokens = 0
        self._message_started = self._has_tool_calls = False
        self._index = -1
        self._open_block = ""

    def start(self, task: GenerationTask) -> None:
        self._prompt_tokens = len(task.prompt)

    def encode_chunk(self, delta: Delta) -> bytes:
        parts = [self._message_start()]
        if delta.thinking:
            parts.append(self._text_delta(_THINKING, delta.thinking))
        if delta.content:
            parts.append(self._text_delta(_TEXT, delta.content))
        parts += [self._tool_use_block(call) for call in delta.tool_calls]
        return b"".join(parts)

    def encode_end(self, result: GenerationResult, times: RequestTimes) -> bytes:
        reason = self._stop_reason(result, self._has_tool_calls)
        parts = (
            self._message_start(),
            self._block_stop(),
            _event("message_delta", {"delta": reason, "usage": _usage(result)}),
            _event("message_stop", {}),
        )
        return b"".join(parts)

    def encode_whole(self, delta: Delta, result: GenerationResult, times: RequestTimes) -> bytes:
        content: list[dict[str, object]] = []
        if delta.thinking:
            content.append({"type": "thinking", "thinking": delta.thinking, "signature": ""})
        if delta.content:
            content.append({"type": "text", "text": delta.content})
        content += [_tool_use(call, call.arguments) for call in delta.tool_calls]
        reason = self._stop_reason(result, bool(delta.tool_calls))
        return compact_json(self._message(content) | reason | {"usage": _usage(result)}).encode()

    def _stop_reason(self, result: GenerationResult, called: bool) -> dict[str, object]:
        if result.reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if called or result.stop_string not in self._stop_sequences:
            return {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}
        return {"stop_reason": "stop_sequence", "stop_sequence": result.stop_string}

    def _message(self, content: list[dict[str, object]]) -> dict[str, object]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _message_start(self) -> bytes:
        """Return the event that begins the stream; empty after the first call."""
        if self._message_started:
            return b""
        self._message_started = True
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        return _event("message_start", {"message": self._message([]) | {"usage": usage}})

    def _text_delta(self, kind: tuple[str, str, str], text: str) -> bytes:
        name, member, delta_type = kind
        start = b""
        if self._open_block != name:
            block: dict[str, object] = {"type": name, member: ""}
            start = self._block_start(name, block | ({"signature": ""} if kind is _THINKING else {}))
        delta = f'{{"type":"{delta_type}","{member}":{encode_basestring(text)}}}'
        data = f'{{"type":"content_block_delta","index":{self._index},"delta":{delta}}}'
        return start + server_sent_event(data, "content_block_delta")

    def _tool_use_block(self, call: ToolCall) -> bytes:
        self._has_tool_calls = True
        start = self._block_start("tool_use", _tool_use(call, {}))
        delta = {"type": "input_json_delta", "partial_json": arguments_json(call)}
        return start + _event("content_block_delta", {"index": self._index, "delta": delta})

    def _block_start(self, name: str, block: dict[str, object]) -> bytes:
        stop = self._block_stop()
        self._open_block = name
        self._index += 1
        return stop + _event("content_block_start", {"index": self._index, "content_block": block})

    def _block_stop(self) -> bytes:
        """End the open block, if there is one."""
        if not self._open_block:
            return b""
        self._open_block = ""
        return _event("content_block_stop", {"index": self._index})


def _tool_use(call: ToolCall, arguments: object) -> dict[str, object]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _event(name: str, members: dict[str, object]) -> bytes:
    return server_sent_event(compact_json({"type": name, **members}), name)


def _usage(result: GenerationResult) -> dict[str, int]:
    return {"input_tokens": result.prompt_tokens, "output_tokens": len(result.tokens)}
