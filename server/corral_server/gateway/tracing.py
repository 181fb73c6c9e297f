"""Spans of the gateway's requests, sent by OTLP over HTTP: the only module that knows OpenTelemetry.

A request's spans are made when it has ended, from what was recorded of it, so tracing adds nothing while it is served;
they are sent by a thread of the SDK's own. Parent is the client's span, where its ``traceparent`` names one; the header
itself goes to the runner as it came. Everything else is set by OpenTelemetry's own environment variables.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from corral_core.errors import InvalidSetting
from corral_server.gateway.messages import Headers
from corral_server.gateway.record import Record
from corral_server.gateway.usage import usage

LAST = 3.0
"""Seconds that the last spans get."""
_CONTEXT = (b"traceparent", b"tracestate")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"


def check(environ: Mapping[str, str]) -> None:
    """Raises InvalidSetting for another protocol than the one spoken here: spans would go where nobody reads them."""
    for name in _PROTOCOLS:
        asked = environ.get(name, "")
        if asked and asked != _SPOKEN:
            raise InvalidSetting(f"{name}={asked!r} is not allowed: spans are sent by {_SPOKEN} alone")


class Tracing:
    """A sink of records. ``close`` sends what is left, and blocks for ``LAST`` seconds at most."""

    def __init__(self) -> None:
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "corral-gateway"}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._exporter: SpanExporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("corral.gateway")
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, record: Record) -> None:
        unix = time.time() - time.perf_counter()
        begun, ended = unix + record.begun, unix + record.ended
        parent = self._propagator.extract(_carrier(record.headers))
        request = self._span(f"{record.method} {record.api}", parent, begun, kind=SpanKind.SERVER)
        if request.is_recording():
            self._describe(request, record)
            if record.model:
                self._parts(record, set_span_in_context(request), begun, ended=ended, unix=unix)
        request.end(_ns(ended))

    def close(self) -> None:
        ending = threading.Thread(target=self._provider.shutdown, name="the last spans", daemon=True)
        ending.start()
        ending.join(LAST)
        if ending.is_alive():  # nobody takes them: the SDK would try for half a minute, and hold up the process
            self._exporter.shutdown()

    def _describe(self, request: Span, record: Record) -> None:
        request.set_attributes(
            {
                "http.request.method": record.method,
                "http.route": record.api,
                "http.response.status_code": record.status,
                "http.response.body.size": record.size,
                "corral.model": record.model,
            }
        )
        for name, count in zip(("input", "output"), usage(record.tail), strict=True):
            if count is not None:
                request.set_attribute(f"gen_ai.usage.{name}_tokens", count)
        if record.status >= 500 or record.broken:
            request.set_attribute("error.type", "broken" if record.broken else str(record.status))
            request.set_status(Status(StatusCode.ERROR))

    def _parts(self, record: Record, within: Context, begun: float, *, ended: float, unix: float) -> None:
        """Queue, wake and upstream, each where there was one."""
        ticket = record.ticket
        sent = begun
        if ticket is not None and ticket.waited:
            start = max(begun, ticket.since)
            sent = min(ended, start + ticket.waited)
            queue = self._span("queue", within, start)
            if ticket.woke:
                self._span("wake", set_span_in_context(queue), start).end(_ns(sent))
            queue.end(_ns(sent))
        if not record.sent:
            return
        upstream = self._span("upstream", within, sent, kind=SpanKind.CLIENT)
        if record.first:
            upstream.add_event("first byte", timestamp=_ns(unix + record.first))
        upstream.end(_ns(ended))

    def _span(self, name: str, within: Context, start: float, *, kind: SpanKind = SpanKind.INTERNAL) -> Span:
        return self._tracer.start_span(name, within, kind=kind, start_time=_ns(start))


def _carrier(headers: Headers) -> dict[str, str]:
    """The context's headers; ``tracestate`` may come in several."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in _CONTEXT:
            key, text = name.decode(), value.decode("latin-1")
            carrier[key] = f"{carrier[key]},{text}" if key in carrier else text
    return carrier


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
