"""How OpenAI's old API writes a generation: ``text_completion`` objects, in server-sent events or in one.

As in Ollama thinking is not shown, and with ``include_usage`` every chunk of a stream but the last has a usage of
zeros.
"""

from __future__ import annotations

import secrets
import time

from corral_server.runner.answer import Times
from corral_server.runner.delta import Delta
from corral_server.runner.delta_json import compact, logprob_objects
from corral_server.runner.generation import Finish, Task
from corral_server.runner.openai_writer import DONE, EVENTS, FINGERPRINT, event, usage_of

_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class CompletionWriter:
    """``created`` and ``id`` are one for all chunks of a stream."""

    media_type = EVENTS

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._model = model
        self._include_usage = include_usage
        self._head = {"id": f"cmpl-{secrets.randbelow(999)}", "object": "text_completion", "created": int(time.time())}

    def begin(self, task: Task) -> None:
        """Nothing of the task is written."""

    def piece(self, delta: Delta) -> bytes:
        return self._chunk([_choice(delta, None)]) if delta.content or delta.logprobs else b""

    def end(self, finish: Finish, times: Times) -> bytes:
        return self._end(finish.reason, usage_of(finish))

    def whole(self, delta: Delta, finish: Finish, times: Times) -> bytes:
        return self._whole(_choice(delta, finish.reason), usage_of(finish))

    def loaded(self, *, stream: bool) -> bytes:
        """The answer to a request without a prompt."""
        return self._end("load", _NO_USAGE) if stream else self._whole(_choice(Delta(), "load"), _NO_USAGE)

    def _whole(self, choice: dict[str, object], usage: dict[str, int]) -> bytes:
        head = {**self._head, "model": self._model, "system_fingerprint": FINGERPRINT}
        return compact({**head, "choices": [choice], "usage": usage}).encode()

    def _end(self, reason: str, usage: dict[str, int]) -> bytes:
        last = self._chunk([_choice(Delta(), reason)])
        return last + (self._chunk([], usage) if self._include_usage else b"") + DONE

    def _chunk(self, choices: list[dict[str, object]], usage: dict[str, int] = _NO_USAGE) -> bytes:
        body = {**self._head, "choices": choices, "model": self._model, "system_fingerprint": FINGERPRINT}
        return event({**body, "usage": usage} if self._include_usage else body)


def _choice(delta: Delta, reason: str | None) -> dict[str, object]:
    content = logprob_objects(delta.logprobs, always_top=True)
    logprobs = {"logprobs": {"content": content}} if content else {}
    return {"text": delta.content, "index": 0, "finish_reason": reason, **logprobs}
