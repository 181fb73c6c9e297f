"""Response encoders of Ollama's API: one JSON object per line; the last has ``done_reason`` and the metrics.

The constant parts of a line are encoded once per request, so a streamed chunk costs one escaping of its text and one
read of the timestamps. Source: ``GenerateResponse``, ``ChatResponse`` and ``Metrics`` in Ollama's ``api/types.go``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring

from starlette.responses import Response

from corral_server.runner.api.encoding import logprob_objects
from corral_server.runner.api.generation import ResponseEncoder
from corral_server.runner.api.response import RequestTimes
from corral_server.runner.chat.delta import Delta, ToolCall
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.wire.json_encoding import compact_json

NDJSON = b"application/x-ndjson"


class _Timestamps:
    """Timestamps in RFC 3339 with nanoseconds, UTC. The part up to the second is formatted once per second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        second, nanoseconds = divmod(time.time_ns(), 10**9)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{nanoseconds:09d}Z"


timestamps = _Timestamps()


_ContentMembers = Callable[[Delta], str]
"""Encodes the member that has the text: ``"response":"..."`` or ``"message":{...}``."""

_EMPTY_DELTA = Delta()


class _OllamaEncoder(ResponseEncoder):
    media_type = NDJSON

    def __init__(self, model: str, content: _ContentMembers, *, with_context: bool) -> None:
        self._head = f'{{"model":{encode_basestring(model)},"created_at":"'
        self._content = content
        self._with_context = with_context
        self._prompt: tuple[int, ...] = ()

    def start(self, task: GenerationTask) -> None:
        self._prompt = task.prompt

    def encode_chunk(self, delta: Delta) -> bytes:
        members = f'{self._content(delta)},"done":false{_logprobs_member(delta)}'
        return f'{self._head}{timestamps.now()}",{members}}}\n'.encode()

    def encode_end(self, result: GenerationResult, times: RequestTimes) -> bytes:
        return self.encode_whole(_EMPTY_DELTA, result, times) + b"\n"

    def encode_whole(self, delta: Delta, result: GenerationResult, times: RequestTimes) -> bytes:
        tail = compact_json(self._tail(result, times))[1:-1]
        members = f'{self._content(delta)},"done":true,{tail}{_logprobs_member(delta)}'
        return f'{self._head}{timestamps.now()}",{members}}}'.encode()

    def _tail(self, result: GenerationResult, times: RequestTimes) -> dict[str, object]:
        members: dict[str, object] = {"done_reason": result.reason}
        if self._with_context:
            prompt = [token for token in self._prompt if token >= 0]  # without the cells of images
            members["context"] = [*prompt, *result.tokens]
        metrics = {
            "total_duration": time.monotonic_ns() - times.requested_ns,
            "load_duration": times.received_ns - times.requested_ns,
            "prompt_eval_count": result.prompt_tokens,
            "prompt_eval_duration": result.prefill_ns,
            "eval_count": len(result.tokens),
            "eval_duration": result.decode_ns,
        }
        return members | {name: value for name, value in metrics.items() if value}


class GenerateEncoder(_OllamaEncoder):
    def __init__(self, model: str, *, with_context: bool) -> None:
        super().__init__(model, _response_member, with_context=with_context)


class ChatEncoder(_OllamaEncoder):
    def __init__(self, model: str) -> None:
        super().__init__(model, _message_member, with_context=False)


def load_response(model: str, chat: bool, *, reason: str) -> Response:
    """Answer a request without a prompt; ``reason`` is ``load`` or ``unload``."""
    content = (_message_member if chat else _response_member)(_EMPTY_DELTA)
    head = f'{{"model":{encode_basestring(model)},"created_at":"{timestamps.now()}"'
    body = f'{head},{content},"done":true,"done_reason":"{reason}"}}'
    return Response(body, media_type="application/json; charset=utf-8")


def rendered_prompt_response(model: str, chat: bool, *, prompt: str) -> Response:
    """Answer ``_debug_render_only`` with the rendered prompt."""
    content = '"message":{"role":"","content":""}' if chat else '"response":""'
    debug = compact_json({"rendered_template": prompt})
    head = f'{{"model":{encode_basestring(model)},"created_at":"{timestamps.now()}"'
    body = f'{head},{content},"done":false,"_debug_info":{debug}}}'
    return Response(body, media_type="application/json; charset=utf-8")


def _response_member(delta: Delta) -> str:
    return f'"response":{encode_basestring(delta.content)}{_thinking_and_calls(delta)}'


def _message_member(delta: Delta) -> str:
    return f'"message":{{"role":"assistant","content":{encode_basestring(delta.content)}{_thinking_and_calls(delta)}}}'


def _thinking_and_calls(delta: Delta) -> str:
    thinking = f',"thinking":{encode_basestring(delta.thinking)}' if delta.thinking else ""
    return f'{thinking},"tool_calls":{compact_json(_tool_calls(delta.tool_calls))}' if delta.tool_calls else thinking


def _logprobs_member(delta: Delta) -> str:
    return f',"logprobs":{compact_json(logprob_objects(delta.logprobs, always_top=False))}' if delta.logprobs else ""


def _tool_calls(calls: Iterable[ToolCall]) -> list[dict[str, object]]:
    return [
        {"id": call.id, "function": {"index": call.index, "name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
