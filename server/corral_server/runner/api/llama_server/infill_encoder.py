"""Response encoder of ``/infill``: objects of llama.cpp's server, as server-sent events or as one object.

Source: ``to_json_non_oaicompat`` in llama.cpp's ``tools/server/server-task.cpp``. The settings of the generation and
the prompt are not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.api.generation import ResponseEncoder
from corral_server.runner.api.response import RequestTimes
from corral_server.runner.chat.delta import Delta
from corral_server.runner.engine.generation import GenerationResult
from corral_server.wire.event_stream import EVENT_STREAM, server_sent_event
from corral_server.wire.json_encoding import compact_json


class InfillEncoder(ResponseEncoder):
    """``response_fields`` are the members of the last object that the client wants, all if there are none.

    A member of a member is named as ``timings/prompt_n``. Without ``shows_output`` there is no text.
    """

    media_type = EVENT_STREAM

    def __init__(self, model: str, response_fields: Sequence[str], *, shows_output: bool) -> None:
        self._model = model
        self._response_fields = response_fields
        self._shows_output = shows_output

    def encode_chunk(self, delta: Delta) -> bytes:
        if not delta.content or not self._shows_output:
            return b""
        return server_sent_event(compact_json({"index": 0, "content": delta.content, "tokens": [], "stop": False}))

    def encode_end(self, result: GenerationResult, times: RequestTimes) -> bytes:
        return server_sent_event(compact_json(self._last("", result)))

    def encode_whole(self, delta: Delta, result: GenerationResult, times: RequestTimes) -> bytes:
        return compact_json(self._last(delta.content, result)).encode()

    def _last(self, content: str, result: GenerationResult) -> dict[str, object]:
        """Return the last object. It ends with the usage, by which gateways count the tokens of API keys."""
        generated = len(result.tokens) if self._shows_output else 0
        reason = "limit" if result.reason == "length" else "word" if result.stop_string else "eos"
        body: dict[str, object] = {
            "index": 0,
            "content": content if self._shows_output else "",
            "tokens": [],
            "stop": True,
            "model": self._model,
            "truncated": False,
            "stop_type": reason,
            "stopping_word": result.stop_string,
            "tokens_cached": result.prompt_tokens + generated,
            "timings": _timings(result, generated),
        }
        usage = {"tokens_predicted": generated, "tokens_evaluated": result.prompt_tokens}
        return _selected(body, self._response_fields) | usage


def _selected(body: dict[str, object], names: Sequence[str]) -> dict[str, object]:
    """Return these members by the names that the client used; those that do not exist are left out."""
    found = {name: _member(body, name) for name in names}
    return {name: value for name, value in found.items() if value is not None} if names else body


def _member(body: dict[str, object], name: str) -> object:
    value: object = body
    for key in name.split("/"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _timings(result: GenerationResult, generated: int) -> dict[str, float]:
    evaluated = result.prompt_tokens - result.cached_tokens
    prompt_ms, predicted_ms = result.prefill_ns / 1e6, result.decode_ns / 1e6
    return {
        "cache_n": result.cached_tokens,
        "prompt_n": evaluated,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / max(evaluated, 1),
        "prompt_per_second": _rate(evaluated, prompt_ms),
        "predicted_n": generated,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / max(generated, 1),
        "predicted_per_second": _rate(generated, predicted_ms),
    }


def _rate(tokens: int, milliseconds: float) -> float:
    return 1000 * tokens / milliseconds if milliseconds > 0 else 0.0
