"""The access log: one line for each request, and never a word of what was asked or answered.

Nothing that a client wrote is in it but the identity of its trace, which is sixteen bytes in hexadecimal digits: names
of Models are those that exist, paths those that are served.

So many lines a second are written at most; those that are left away are counted in the next line (``skipped``). An
installation in ordinary use so sees every request, and a flood costs next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import perf_counter

from corral_server.gateway import log
from corral_server.gateway.record import Record
from corral_server.gateway.usage import usage

_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class AccessLog:
    """``rate`` lines a second, and as many at once. ``write`` gets the fields of a line."""

    def __init__(
        self, rate: float, *, write: Callable[..., None] = log.event, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._rate = rate
        self._write = write
        self._clock = clock
        self._allowed = rate
        self._counted = clock()
        self._skipped = 0

    def __call__(self, record: Record) -> None:
        now = self._clock()
        self._allowed = min(self._rate, self._allowed + (now - self._counted) * self._rate)
        self._counted = now
        if self._allowed < 1:
            self._skipped += 1
            return
        self._allowed -= 1
        skipped, self._skipped = self._skipped, 0
        self._write("request", **_fields(record), **({"skipped": skipped} if skipped else {}))


def _fields(record: Record) -> dict[str, object]:
    ticket = record.ticket
    fields: dict[str, object] = {
        "model": record.model,
        "method": record.method,
        "api": record.api,
        "code": record.status,
        "seconds": round(record.ended - record.begun, 4),
        "waited": round(ticket.waited, 4) if ticket is not None else 0.0,
        "wake": ticket is not None and ticket.woke,
        "bytes": record.size,
    }
    if record.first:
        fields["ttft"] = round(record.first - record.begun, 4)
    if record.broken:
        fields["broken"] = True
    tokens = zip(("prompt_tokens", "tokens"), usage(record.tail), strict=True)
    fields |= {name: count for name, count in tokens if count is not None}
    if record.client:
        fields["client"] = record.client
    trace = _trace(record)
    if trace:
        fields["trace"] = trace
    return fields


def _trace(record: Record) -> str:
    """By which the request's line is found beside its spans; empty when its client does not trace."""
    value = next((value for name, value in record.headers if name == b"traceparent"), b"")
    found = _TRACE.match(value)
    return found[1].decode() if found is not None else ""
