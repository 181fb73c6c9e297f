"""Access log with one JSON line per request.

- A line contains no text of a client except the trace ID, which is 32 hexadecimal digits: model names are those of
  existing Models, paths are served ones.
- The number of lines per second is limited; the next line counts the ones left out (``skipped``). Ordinary use logs
  every request, and a flood costs almost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import perf_counter

from corral_server.gateway import log
from corral_server.gateway.observability.line_limit import LineLimit
from corral_server.gateway.observability.request_metrics import RequestMetrics
from corral_server.gateway.observability.token_usage import token_usage

_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class AccessLog:
    """``rate`` is lines per second; ``write`` gets the fields of a line."""

    def __init__(
        self, rate: float, *, write: Callable[..., None] = log.event, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._write = write
        self._limit = LineLimit(rate, clock)

    def __call__(self, metrics: RequestMetrics) -> None:
        skipped = self._limit.skipped()
        if skipped is not None:
            self._write("request", **_fields(metrics), **skipped)


def _fields(metrics: RequestMetrics) -> dict[str, object]:
    pending = metrics.pending
    fields: dict[str, object] = {
        "model": metrics.model,
        "method": metrics.method,
        "api": metrics.api,
        "code": metrics.status,
        "seconds": round(metrics.ended_at - metrics.started_at, 4),
        "queue_seconds": round(pending.queue_seconds, 4) if pending is not None else 0.0,
        "wake": pending is not None and pending.wake,
        "bytes": metrics.response_bytes,
    }
    if metrics.first_byte_at:
        fields["ttft"] = round(metrics.first_byte_at - metrics.started_at, 4)
    if metrics.incomplete:
        fields["incomplete"] = True
    tokens = zip(("prompt_tokens", "tokens"), token_usage(metrics.tail), strict=True)
    fields |= {name: count for name, count in tokens if count is not None}
    if metrics.api_key:
        fields["api_key"] = metrics.api_key
    trace_id = _trace_id(metrics)
    if trace_id:
        fields["trace_id"] = trace_id
    return fields


def _trace_id(metrics: RequestMetrics) -> str:
    """Return the trace ID of the request, empty if its ``traceparent`` is missing or invalid."""
    value = next((value for name, value in metrics.headers if name == b"traceparent"), b"")
    found = _TRACE.match(value)
    return found[1].decode() if found is not None else ""
