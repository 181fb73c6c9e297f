"""The parts of a delta that Ollama's and OpenAI's APIs write alike, as values for JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable

from corral_server.runner.delta import ToolCall
from corral_server.runner.generation import TokenLogprob


def logprob_objects(logprobs: Iterable[TokenLogprob], *, always_top: bool) -> list[dict[str, object]]:
    """``always_top`` writes an empty list of alternatives too, as OpenAI's clients expect."""
    return [
        _token(logprob)
        | ({"top_logprobs": [_token(other) for other in logprob.top]} if logprob.top or always_top else {})
        for logprob in logprobs
    ]


def _token(logprob: TokenLogprob) -> dict[str, object]:
    return {"token": logprob.token, "logprob": logprob.logprob, "bytes": list(logprob.data)}


def native_calls(calls: Iterable[ToolCall]) -> list[dict[str, object]]:
    return [
        {"id": call.id, "function": {"index": call.index, "name": call.name, "arguments": call.arguments}}
        for call in calls
    ]


def openai_calls(calls: Iterable[ToolCall]) -> list[dict[str, object]]:
    """OpenAI's have their arguments as a text."""
    return [
        {
            "id": call.id,
            "index": call.index,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_text(call)},
        }
        for call in calls
    ]


def arguments_text(call: ToolCall) -> str:
    return json.dumps(call.arguments, ensure_ascii=False, separators=(",", ":"))


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
