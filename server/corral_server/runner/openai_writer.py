"""How OpenAI's chat API writes a generation: server-sent events, or one ``chat.completion`` object."""

from __future__ import annotations

import secrets
import time
from json.encoder import encode_basestring

from corral_server.runner.answer import Times
from corral_server.runner.delta import Delta
from corral_server.runner.delta_json import compact, logprob_objects, openai_calls
from corral_server.runner.generation import Finish, Task

EVENTS = b"text/event-stream"
DONE = b"data: [DONE]\n\n"
FINGERPRINT = "fp_ollama"


class OpenAIWriter:
    """``created`` and ``id`` are one for all chunks of a stream; the role is in the first delta only."""

    media_type = EVENTS

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._id = f"chatcmpl-{secrets.randbelow(999)}"
        self._model = model
        self._created = int(time.time())
        self._include_usage = include_usage
        self._head = f'data: {compact(self._object("chat.completion.chunk"))[:-1]},"choices":[{{"index":0,"delta":{{'
        self._role = '"role":"assistant",'
        self._called = False

    def begin(self, task: Task) -> None:
        """Nothing of the task is written."""

    def piece(self, delta: Delta) -> bytes:
        """Reasoning, content and calls are never in one chunk; logprobs go with the first."""
        parts = [("reasoning", encode_basestring(delta.thinking))] if delta.thinking else []
        if delta.content:
            parts.append(("content", encode_basestring(delta.content)))
        if delta.tool_calls:
            self._called = True
            parts.append(("tool_calls", compact(openai_calls(delta.tool_calls))))
        logprobs = compact(_logprobs(delta))[1:-1] if delta.logprobs else ""
        first, *others = parts or [("content", '""')]
        return b"".join((self._chunk(*first, logprobs=logprobs), *(self._chunk(*other) for other in others)))

    def end(self, finish: Finish, times: Times) -> bytes:
        first = self._chunk("content", '""') if self._role else b""
        choice = {"index": 0, "delta": {}, "finish_reason": _reason(finish, self._called)}
        parts = [first, event(self._object("chat.completion.chunk") | {"choices": [choice]})]
        if self._include_usage:
            parts.append(event(self._object("chat.completion.chunk") | {"choices": [], "usage": usage_of(finish)}))
        return b"".join((*parts, DONE))

    def whole(self, delta: Delta, finish: Finish, times: Times) -> bytes:
        message: dict[str, object] = {"role": "assistant", "content": delta.content}
        if delta.thinking:
            message["reasoning"] = delta.thinking
        if delta.tool_calls:
            message["tool_calls"] = openai_calls(delta.tool_calls)
        choice = {"index": 0, "message": message, "finish_reason": _reason(finish, bool(delta.tool_calls))}
        choice |= _logprobs(delta)
        body = self._object("chat.completion") | {"choices": [choice], "usage": usage_of(finish)}
        return compact(body).encode()

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


def event(body: dict[str, object]) -> bytes:
    return f"data: {compact(body)}\n\n".encode()


def _reason(finish: Finish, called: bool) -> str:
    return "tool_calls" if called and finish.reason == "stop" else finish.reason


def _logprobs(delta: Delta) -> dict[str, object]:
    content = logprob_objects(delta.logprobs, always_top=True)
    return {"logprobs": {"content": content}} if content else {}


def usage_of(finish: Finish) -> dict[str, int]:
    prompt, completion = finish.prompt_tokens, len(finish.generated)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
