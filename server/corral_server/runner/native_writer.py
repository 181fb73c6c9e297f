"""How Ollama's API writes a generation: one JSON object a line, the last with the reason and the metrics.

The constant parts of a line are made once for each request: a streamed chunk costs one escape of its text and one look
at the clock.
"""

from __future__ import annotations

import json
import time
from json.encoder import encode_basestring
from typing import Protocol

from starlette.responses import Response

from corral_server.runner.answer import Times
from corral_server.runner.generation import Engine, Finish, Task
from corral_server.runner.thinking import ThinkingSplitter, split, splitter_for

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


class _Content(Protocol):
    """The members that hold the text: ``"response":"..."`` or ``"message":{...}``."""

    def __call__(self, text: str, thinking: str = "") -> str: ...


class _NativeWriter:
    media_type = NDJSON

    def __init__(self, model: str, content: _Content, *, with_context: bool, thinks: bool) -> None:
        self._head = f'{{"model":{encode_basestring(model)},"created_at":"'
        self._content = content
        self._with_context = with_context
        self._thinks = thinks
        self._prompt: tuple[int, ...] = ()
        self._splitter: ThinkingSplitter | None = None

    def begin(self, task: Task, engine: Engine) -> None:
        self._prompt = task.prompt
        self._splitter = splitter_for(task, engine) if self._thinks else None

    def piece(self, text: str) -> bytes:
        if self._splitter is None:
            return self._line(self._content(text))
        thinking, text = self._splitter.push(text)
        return self._line(self._content(text, thinking)) if text or thinking else b""

    def end(self, finish: Finish, times: Times) -> bytes:
        thinking, text = self._splitter.flush() if self._splitter else ("", "")
        rest = self._line(self._content(text, thinking)) if text or thinking else b""
        return rest + self._last(self._content(""), finish, times) + b"\n"

    def whole(self, text: str, finish: Finish, times: Times) -> bytes:
        thinking, answer = split(text, self._splitter) if self._splitter else ("", text)
        return self._last(self._content(answer, thinking), finish, times)

    def _line(self, content: str) -> bytes:
        return f'{self._head}{clock.now()}",{content},"done":false}}\n'.encode()

    def _last(self, content: str, finish: Finish, times: Times) -> bytes:
        tail = json.dumps(self._tail(finish, times), separators=(",", ":"))[1:]
        return f'{self._head}{clock.now()}",{content},"done":true,{tail}'.encode()

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
    def __init__(self, model: str, *, with_context: bool, thinks: bool) -> None:
        super().__init__(model, _response, with_context=with_context, thinks=thinks)


class ChatWriter(_NativeWriter):
    def __init__(self, model: str, *, thinks: bool) -> None:
        super().__init__(model, _message, with_context=False, thinks=thinks)


def loaded_answer(model: str, chat: bool, *, reason: str) -> Response:
    """The answer to a request without a prompt: the model was loaded, or will be unloaded."""
    content = _message("") if chat else _response("")
    head = f'{{"model":{encode_basestring(model)},"created_at":"{clock.now()}"'
    body = f'{head},{content},"done":true,"done_reason":"{reason}"}}'
    return Response(body, media_type="application/json; charset=utf-8")


def _response(text: str, thinking: str = "") -> str:
    more = f',"thinking":{encode_basestring(thinking)}' if thinking else ""
    return f'"response":{encode_basestring(text)}{more}'


def _message(text: str, thinking: str = "") -> str:
    more = f',"thinking":{encode_basestring(thinking)}' if thinking else ""
    return f'"message":{{"role":"assistant","content":{encode_basestring(text)}{more}}}'
