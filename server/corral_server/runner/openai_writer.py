"""How OpenAI's chat API writes a generation: server-sent events, or one ``chat.completion`` object."""

from __future__ import annotations

import json
import secrets
import time
from json.encoder import encode_basestring

from corral_server.runner.answer import Times
from corral_server.runner.generation import Engine, Finish, Task
from corral_server.runner.thinking import Shown, ThinkingSplitter, split, splitter_for

EVENTS = b"text/event-stream"
DONE = b"data: [DONE]\n\n"
_FINGERPRINT = "fp_ollama"


class OpenAIWriter:
    """``created`` and ``id`` are one for all chunks of a stream; the role is in the first delta only."""

    media_type = EVENTS

    def __init__(self, model: str, *, include_usage: bool, thinks: bool) -> None:
        self._id = f"chatcmpl-{secrets.randbelow(999)}"
        self._model = model
        self._created = int(time.time())
        self._include_usage = include_usage
        self._thinks = thinks
        self._splitter: ThinkingSplitter | None = None
        head = json.dumps(self._object("chat.completion.chunk"), ensure_ascii=False, separators=(",", ":"))[:-1]
        self._head = f'data: {head},"choices":[{{"index":0,"delta":{{'
        self._role = '"role":"assistant",'

    def begin(self, task: Task, engine: Engine) -> None:
        self._splitter = splitter_for(task, engine) if self._thinks else None

    def piece(self, text: str) -> bytes:
        if self._splitter is None:
            return self._chunk("content", text)
        return self._chunks(self._splitter.push(text))

    def end(self, finish: Finish, times: Times) -> bytes:
        rest = self._chunks(self._splitter.flush()) if self._splitter else b""
        first = self._chunk("content", "") if self._role else b""
        choice = {"index": 0, "delta": {}, "finish_reason": finish.reason}
        parts = [rest, first, _event(self._object("chat.completion.chunk") | {"choices": [choice]})]
        if self._include_usage:
            parts.append(_event(self._object("chat.completion.chunk") | {"choices": [], "usage": _usage(finish)}))
        return b"".join((*parts, DONE))

    def whole(self, text: str, finish: Finish, times: Times) -> bytes:
        thinking, answer = split(text, self._splitter) if self._splitter else ("", text)
        message = {"role": "assistant", "content": answer} | ({"reasoning": thinking} if thinking else {})
        choice = {"index": 0, "message": message, "finish_reason": finish.reason}
        body = self._object("chat.completion") | {"choices": [choice], "usage": _usage(finish)}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    def _chunks(self, shown: Shown) -> bytes:
        """Reasoning and content are never in one chunk."""
        reasoning = self._chunk("reasoning", shown.thinking) if shown.thinking else b""
        return reasoning + (self._chunk("content", shown.answer) if shown.answer else b"")

    def _chunk(self, name: str, text: str) -> bytes:
        role, self._role = self._role, ""
        return f'{self._head}{role}"{name}":{encode_basestring(text)}}},"finish_reason":null}}]}}\n\n'.encode()

    def _object(self, kind: str) -> dict[str, object]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": _FINGERPRINT,
        }


def _event(body: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _usage(finish: Finish) -> dict[str, int]:
    prompt, completion = finish.prompt_tokens, len(finish.generated)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
