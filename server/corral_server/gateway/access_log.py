"""The access log: one line for each request that went to a Model, and never a word of what was asked or answered.

So many lines a second are written at most; those that are left away are counted in the next line (``skipped``). An
installation in ordinary use so sees every request, and a flood costs next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import perf_counter

from corral_server.gateway import log
from corral_server.gateway.record import Record

TAIL = 4096
"""Bytes at the end of an answer in which the numbers of tokens are looked for."""

# In a text that a model wrote every quotation mark is escaped, so these are the answer's own fields.
_PROMPT = re.compile(rb'[{,]"(?:prompt_eval_count|prompt_tokens|input_tokens)":\s?(\d{1,12})')
_GENERATED = re.compile(rb'[{,]\s?"(?:eval_count|completion_tokens|output_tokens)":\s?(\d{1,12})')


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
        if not record.model:
            return
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
    ticket, tail = record.ticket, record.tail[-TAIL:]
    fields: dict[str, object] = {
        "model": record.model,
        "api": record.api,
        "code": record.status,
        "seconds": round(record.ended - record.begun, 4),
        "waited": round(ticket.waited, 4) if ticket is not None else 0.0,
        "wake": ticket is not None and ticket.woke,
        "bytes": record.size,
    }
    if record.first:
        fields["ttft"] = round(record.first - record.begun, 4)
    for name, pattern in (("prompt_tokens", _PROMPT), ("tokens", _GENERATED)):
        found = pattern.findall(tail)
        if found:
            fields[name] = int(found[-1])
    if record.client:
        fields["client"] = record.client
    return fields
