"""How Ollama's API writes a generation: one JSON object a line, the last with the reason and the metrics.

The constant parts of a line are made once for each request: a streamed chunk costs one escape of its text and one look
at the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from json.encoder import encode_basestring

from starlette.responses import Response

from corral_server.runner.answer import Times
from corral_server.runner.delta import Delta
from corral_server.runner.delta_json import compact, logprob_objects, native_calls
from corral_server.runner.generation import Finish, Task

NDJSON = b"application/x-ndjson"


class _Clock:
    """RFC 3339 with nanoseconds; the part up to the second is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        second, nanoseconds = divmod(time.time_ns(), 10**9)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{nanoseconds:09d}Z"


clock = _Clock()


_Content = Callable[[Delta], str]
"""The members that hold the text: ``"response":"..."`` or ``"message":{...}``."""

_NOTHING = Delta()


class _NativeWriter:
    media_type = NDJSON

    def __init__(self, model: str, content: _Content, *, with_context: bool) -> None:
        self._head = f'{{"model":{encode_basestring(model)},"created_at":"'
        self._content = content
        self._with_context = with_context
        self._prompt: tuple[int, ...] = ()

    def begin(self, task: Task) -> None:
        self._prompt = task.prompt

    def piece(self, delta: Delta) -> bytes:
        return f'{self._head}{clock.now()}",{self._content(delta)},"done":false{_logprobs(delta)}}}\n'.encode()

    def end(self, finish: Finish, times: Times) -> bytes:
        return self.whole(_NOTHING, finish, times) + b"\n"

    def whole(self, delta: Delta, finish: Finish, times: Times) -> bytes:
        tail = compact(self._tail(finish, times))[1:-1]
        return f'{self._head}{clock.now()}",{self._content(delta)},"done":true,{tail}{_logprobs(delta)}}}'.encode()

    def _tail(self, finish: Finish, times: Times) -> dict[str, object]:
        members: dict[str, object] = {"done_reason": finish.reason}
        if self._with_context:
            members["context"] = [*self._prompt, *finish.generated]
        metrics = {
            "total_duration": time.monotonic_ns() - times.started,
            "load_duration": times.begun - times.started,
            "prompt_eval_count": finish.prompt_tokens,
            "prompt_eval_duration": finish.prompt_ns,
            "eval_count": len(finish.generated),
            "eval_duration": finish.generate_ns,
        }
        return members | {name: value for name, value in metrics.items() if value}


class GenerateWriter(_NativeWriter):
    def __init__(self, model: str, *, with_context: bool) -> None:
        super().__init__(model, _response, with_context=with_context)


class ChatWriter(_NativeWriter):
    def __init__(self, model: str) -> None:
        super().__init__(model, _message, with_context=False)


def loaded_answer(model: str, chat: bool, *, reason: str) -> Response:
    """The answer to a request without a prompt: the model was loaded, or will be unloaded."""
    content = (_message if chat else _response)(_NOTHING)
    head = f'{{"model":{encode_basestring(model)},"created_at":"{clock.now()}"'
    body = f'{head},{content},"done":true,"done_reason":"{reason}"}}'
    return Response(body, media_type="application/json; charset=utf-8")


def debug_answer(model: str, chat: bool, *, prompt: str) -> Response:
    """The answer to a request that only wants to see its prompt."""
    content = '"message":{"role":"","content":""}' if chat else '"response":""'
    debug = compact({"rendered_template": prompt})
    head = f'{{"model":{encode_basestring(model)},"created_at":"{clock.now()}"'
    body = f'{head},{content},"done":false,"_debug_info":{debug}}}'
    return Response(body, media_type="application/json; charset=utf-8")


def _response(delta: Delta) -> str:
    return f'"response":{encode_basestring(delta.content)}{_more(delta)}'


def _message(delta: Delta) -> str:
    return f'"message":{{"role":"assistant","content":{encode_basestring(delta.content)}{_more(delta)}}}'


def _more(delta: Delta) -> str:
    thinking = f',"thinking":{encode_basestring(delta.thinking)}' if delta.thinking else ""
    return f'{thinking},"tool_calls":{compact(native_calls(delta.tool_calls))}' if delta.tool_calls else thinking


def _logprobs(delta: Delta) -> str:
    return f',"logprobs":{compact(logprob_objects(delta.logprobs, always_top=False))}' if delta.logprobs else ""
