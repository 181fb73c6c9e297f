"""Parts of responses that several APIs encode in the same way: logprobs and arguments of tool calls."""

from __future__ import annotations

from collections.abc import Iterable

from corral_server.runner.chat.delta import ToolCall
from corral_server.runner.sampling.text import TokenLogprob
from corral_server.wire.json_encoding import compact_json


def logprob_objects(logprobs: Iterable[TokenLogprob], *, always_top: bool) -> list[dict[str, object]]:
    """Return the JSON objects of logprobs, the same in Ollama's and OpenAI's API.

    With ``always_top`` an empty list of alternatives is included too, as OpenAI's clients expect.
    """
    return [
        _token(logprob)
        | ({"top_logprobs": [_token(other) for other in logprob.top]} if logprob.top or always_top else {})
        for logprob in logprobs
    ]


def arguments_json(call: ToolCall) -> str:
    """Return the arguments of a tool call as JSON text, as OpenAI's and Anthropic's APIs have them."""
    return compact_json(call.arguments)


def _token(logprob: TokenLogprob) -> dict[str, object]:
    return {"token": logprob.token, "logprob": logprob.logprob, "bytes": list(logprob.token_bytes)}
