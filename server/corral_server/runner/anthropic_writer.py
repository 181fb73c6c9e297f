"""How Anthropic's API writes a generation: blocks of thinking, text and calls, each begun and ended in a stream."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from json.encoder import encode_basestring

from corral_server.runner.answer import Times
from corral_server.runner.delta import Delta, ToolCall
from corral_server.runner.delta_json import arguments_text, compact
from corral_server.runner.generation import Finish, Task

_TEXT = ("text", "text", "text_delta")
_THINKING = ("thinking", "thinking", "thinking_delta")


class AnthropicWriter:
    """What always holds: one block is open at a time, and ``index`` is its number."""

    media_type = b"text/event-stream"

    def __init__(self, model: str, stop: Collection[str] = ()) -> None:
        """``stop`` are the request's own stop sequences: the Model's are not told of."""
        self._stop_sequences = frozenset(stop)
        self._id = f"msg_{secrets.token_hex(12)}"
        self._model = model
        self._prompt_tokens = 0
        self._started = self._called = False
        self._index = -1
        self._open = ""

    def begin(self, task: Task) -> None:
        self._prompt_tokens = len(task.prompt)

    def piece(self, delta: Delta) -> bytes:
        parts = [self._start()]
        if delta.thinking:
            parts.append(self._text(_THINKING, delta.thinking))
        if delta.content:
            parts.append(self._text(_TEXT, delta.content))
        parts += [self._call(call) for call in delta.tool_calls]
        return b"".join(parts)

    def end(self, finish: Finish, times: Times) -> bytes:
        parts = (
            self._start(),
            self._stop(),
            _event("message_delta", {"delta": self._reason(finish, self._called), "usage": _usage(finish)}),
            _event("message_stop", {}),
        )
        return b"".join(parts)

    def whole(self, delta: Delta, finish: Finish, times: Times) -> bytes:
        content: list[dict[str, object]] = []
        if delta.thinking:
            content.append({"type": "thinking", "thinking": delta.thinking, "signature": ""})
        if delta.content:
            content.append({"type": "text", "text": delta.content})
        content += [_use(call, call.arguments) for call in delta.tool_calls]
        reason = self._reason(finish, bool(delta.tool_calls))
        return compact(self._message(content) | reason | {"usage": _usage(finish)}).encode()

    def _reason(self, finish: Finish, called: bool) -> dict[str, object]:
        if finish.reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if called or finish.stop not in self._stop_sequences:
            return {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}
        return {"stop_reason": "stop_sequence", "stop_sequence": finish.stop}

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

    def _start(self) -> bytes:
        """The event that begins the stream, once."""
        if self._started:
            return b""
        self._started = True
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        return _event("message_start", {"message": self._message([]) | {"usage": usage}})

    def _text(self, kind: tuple[str, str, str], text: str) -> bytes:
        name, member, delta = kind
        empty: dict[str, object] = {"type": name, member: ""}
        begun = (
            b"" if self._open == name else self._begin(name, empty | ({"signature": ""} if kind is _THINKING else {}))
        )
        data = (
            f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{self._index},'
            f'"delta":{{"type":"{delta}","{member}":{encode_basestring(text)}}}}}\n\n'
        )
        return begun + data.encode()

    def _call(self, call: ToolCall) -> bytes:
        self._called = True
        begun = self._begin("tool_use", _use(call, {}))
        delta = {"type": "input_json_delta", "partial_json": arguments_text(call)}
        return begun + _event("content_block_delta", {"index": self._index, "delta": delta})

    def _begin(self, name: str, block: dict[str, object]) -> bytes:
        ended = self._stop()
        self._open = name
        self._index += 1
        return ended + _event("content_block_start", {"index": self._index, "content_block": block})

    def _stop(self) -> bytes:
        """Ends the open block, where there is one."""
        if not self._open:
            return b""
        self._open = ""
        return _event("content_block_stop", {"index": self._index})


def _use(call: ToolCall, given: object) -> dict[str, object]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}


def _event(name: str, members: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {compact({'type': name, **members})}\n\n".encode()


def _usage(finish: Finish) -> dict[str, int]:
    return {"input_tokens": finish.prompt_tokens, "output_tokens": len(finish.generated)}
