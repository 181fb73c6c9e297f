"""Response encoder of ``/v1/completions``: ``text_completion`` objects, as server-sent events or as one object.

As in Ollama's ``openai/openai.go``, thinking is not part of the response, and with ``include_usage`` each chunk of a
stream but the last has a ``usage`` of zeros.
"""

from __future__ import annotations

import secrets
import time

from corral_server.runner.api.generation import ResponseEncoder
from corral_server.runner.api.openai.response_parts import (
    DONE,
    FINGERPRINT,
    chunk_event,
    logprobs_member,
    usage_object,
)
from corral_server.runner.api.response import RequestTimes
from corral_server.runner.chat.delta import Delta
from corral_server.runner.engine.generation import GenerationResult
from corral_server.wire.event_stream import EVENT_STREAM
from corral_server.wire.json_encoding import compact_json

_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class CompletionEncoder(ResponseEncoder):
    """All chunks of a stream have the same ``created`` and ``id``."""

    media_type = EVENT_STREAM

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._model = model
        self._include_usage = include_usage
        self._head = {"id": f"cmpl-{secrets.randbelow(999)}", "object": "text_completion", "created": int(time.time())}

    def encode_chunk(self, delta: Delta) -> bytes:
        return self._chunk([_choice(delta, None)]) if delta.content or delta.logprobs else b""

    def encode_end(self, result: GenerationResult, times: RequestTimes) -> bytes:
        return self._end(result.reason, usage_object(result))

    def encode_whole(self, delta: Delta, result: GenerationResult, times: RequestTimes) -> bytes:
        return self._whole(_choice(delta, result.reason), usage_object(result))

    def encode_load(self, *, stream: bool) -> bytes:
        """Encode the response to a request without a prompt."""
        return self._end("load", _NO_USAGE) if stream else self._whole(_choice(Delta(), "load"), _NO_USAGE)

    def _whole(self, choice: dict[str, object], usage: dict[str, int]) -> bytes:
        head = {**self._head, "model": self._model, "system_fingerprint": FINGERPRINT}
        return compact_json({**head, "choices": [choice], "usage": usage}).encode()

    def _end(self, reason: str, usage: dict[str, int]) -> bytes:
        last = self._chunk([_choice(Delta(), reason)])
        return last + (self._chunk([], usage) if self._include_usage else b"") + DONE

    def _chunk(self, choices: list[dict[str, object]], usage: dict[str, int] = _NO_USAGE) -> bytes:
        body = {**self._head, "choices": choices, "model": self._model, "system_fingerprint": FINGERPRINT}
        return chunk_event({**body, "usage": usage} if self._include_usage else body)


def _choice(delta: Delta, reason: str | None) -> dict[str, object]:
    return {"text": delta.content, "index": 0, "finish_reason": reason, **logprobs_member(delta)}
