"""Token counts of a response, read from its last bytes in any of the wire formats."""

from __future__ import annotations

import re

from corral_server.gateway.observability.request_metrics import CLIENT_CLOSED_REQUEST, RequestMetrics

TAIL = 4096
"""Bytes at the end of a response that are searched."""
BYTES_PER_TOKEN = 4
"""Estimate for a request whose prompt tokens are not known."""

_WITHOUT_USAGE = frozenset(("/v1/messages/count_tokens", "/tokenize", "/detokenize"))
"""APIs that evaluate no tokens."""

# Quotation marks in generated text are escaped, so these match only fields of the response itself.
_PROMPT = re.compile(rb'[{,]\s?"(?:prompt_eval_count|prompt_tokens|input_tokens|tokens_evaluated)":\s?(\d{1,12})')
_GENERATED = re.compile(rb'[{,]\s?"(?:eval_count|completion_tokens|output_tokens|tokens_predicted)":\s?(\d{1,12})')


def token_usage(tail: bytes) -> tuple[int | None, int | None]:
    """Return the numbers of prompt and generated tokens; None if the response does not contain them."""
    end = tail[-TAIL:]
    return _last(_PROMPT.findall(end)), _last(_GENERATED.findall(end))


def tokens_consumed(metrics: RequestMetrics) -> tuple[int, int]:
    """Return the prompt and generated tokens that a request with an API key consumed; none if it failed.

    Without the numbers in the response, a generated token counts for each event of the stream, and the prompt is what
    the runner reported at its beginning, else a token for each four bytes of the request. So a client that disconnects
    early, or asks for no usage, is counted as well.
    """
    disconnected = metrics.status == CLIENT_CLOSED_REQUEST
    if not metrics.forwarded or metrics.api in _WITHOUT_USAGE or (metrics.status >= 400 and not disconnected):
        return 0, 0
    prompt, generated = token_usage(metrics.tail)
    if prompt is None:
        prompt = metrics.prompt_tokens if metrics.prompt_tokens >= 0 else metrics.body_bytes // BYTES_PER_TOKEN
    if generated is None or disconnected or metrics.incomplete:
        generated = max(generated or 0, metrics.events)
    return prompt, generated


def _last(found: list[bytes]) -> int | None:
    return int(found[-1]) if found else None
