"""How OpenAI's chat API writes a generation: server-sent events, or one ``chat.completion`` object."""

from __future__ import annotations

import json
import secrets
import time
from json.encoder import encode_basestring

from corral_server.runner.answer import Times
from corral_server.runner.generation import Finish, Task

EVENTS = b"text/event-stream"
DONE = b"data: [DONE]\n\n"
_FINGERPRINT = "fp_ollama"


class OpenAIWriter:
    """``created`` and ``id`` are one for all chunks of a stream; the role is in the first delta only."""

    media_type = EVENTS
    task: Task

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._id = f"chatcmpl-{secrets.randbelow(999)}"
        self._model = model
        self._created = int(time.time())
        self._include_usage = include_usage
        head = json.dumps(self._object("chat.completion.chunk"), ensure_ascii=False, separators=(",", ":"))[:-1]
        self._head = f'data: {head},"choices":[{{"index":0,"delta":{{'
        self._role = '"role":"assistant",'

    def piece(self, text: str) -> bytes:
        role, self._role = self._role, ""
        return f'{self._head}{role}"content":{encode_basestring(text)}}},"finish_reason":null}}]}}\n\n'.encode()

    def end(self, finish: Finish, times: Times) -> bytes:
        first = self.piece("") if self._role else b""
        choice = {"index": 0, "delta": {}, "finish_reason": finish.reason}
        parts = [first, _event(self._object("chat.completion.chunk") | {"choices": [choice]})]
        if self._include_usage:
            parts.append(_event(self._object("chat.completion.chunk") | {"choices": [], "usage": _usage(finish)}))
        return b"".join((*parts, DONE))

    def whole(self, text: str, finish: Finish, times: Times) -> bytes:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": finish.reason}
        body = self._object("chat.completion") | {"choices": [choice], "usage": _usage(finish)}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

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
