"""Audit log: one JSON line for each request with an API key, and for each request that was not authenticated.

- No line of a request with a key is left out. The lines of requests without a valid key, which every client can cause,
  are limited per second; the next one counts those left out (``skipped``).
- A line contains no text of a client: keys and Models are those that exist, paths are served ones.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from corral_server.gateway import log
from corral_server.gateway.observability.line_limit import LineLimit
from corral_server.gateway.observability.request_metrics import RequestMetrics
from corral_server.gateway.observability.token_usage import tokens_consumed

RATE = 10.0
"""Lines per second of requests that were not authenticated."""


class AuditLog:
    """Implements ``RequestObserver``. ``write`` gets the fields of a line."""

    def __init__(self, *, write: Callable[..., None] = log.event, clock: Callable[[], float] = perf_counter) -> None:
        self._write = write
        self._limit = LineLimit(RATE, clock)

    def __call__(self, metrics: RequestMetrics) -> None:
        if metrics.api_key:
            self._write("audit", **_fields(metrics))
        elif metrics.status == 401:
            skipped = self._limit.skipped()
            if skipped is not None:
                self._write("audit", **_fields(metrics), **skipped)


def _fields(metrics: RequestMetrics) -> dict[str, object]:
    prompt, generated = tokens_consumed(metrics)
    return {
        "api_key": metrics.api_key,
        "model": metrics.model,
        "model_name": metrics.model_name,
        "method": metrics.method,
        "api": metrics.api,
        "code": metrics.status,
        "seconds": round(metrics.ended_at - metrics.started_at, 4),
        "prompt_tokens": prompt,
        "tokens": generated,
    }
