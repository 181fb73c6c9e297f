"""OpenTelemetry spans of requests, exported by OTLP over HTTP. The only module that imports OpenTelemetry.

- Spans are created after the request, from its metrics, so tracing costs nothing while the request is served. A thread
  of the SDK exports them.
- The parent is the client's span if the request has a ``traceparent``. The header is forwarded to the runner unchanged.
- Everything else is configured by OpenTelemetry's environment variables.
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

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.http_server.exchange import Headers
from corral_server.gateway.observability.request_metrics import RequestMetrics
from corral_server.gateway.observability.token_usage import token_usage

SHUTDOWN_TIMEOUT = 3.0
"""Seconds to export the remaining spans on shutdown."""
_CONTEXT = (b"traceparent", b"tracestate")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SUPPORTED_PROTOCOL = "http/protobuf"


def check_protocol(environ: Mapping[str, str]) -> None:
    """Raise InvalidSetting for an unsupported protocol."""
    for name in _PROTOCOLS:
        protocol = environ.get(name, "")
        if protocol and protocol != _SUPPORTED_PROTOCOL:
            raise InvalidSetting(f"{name}={protocol!r} is not allowed: only {_SUPPORTED_PROTOCOL} is supported")


class RequestTracer:
    """Implements ``RequestObserver``.

    ``close`` exports the remaining spans and blocks for at most ``SHUTDOWN_TIMEOUT``.
    """

    def __init__(self) -> None:
        attributes = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "corral-gateway"}
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._exporter: SpanExporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("corral.gateway")
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, metrics: RequestMetrics) -> None:
        clock_offset = time.time() - time.perf_counter()
        request_start, request_end = clock_offset + metrics.started_at, clock_offset + metrics.ended_at
        parent = self._propagator.extract(_carrier(metrics.headers))
        request = self._span(f"{metrics.method} {metrics.api}", parent, request_start, kind=SpanKind.SERVER)
        if request.is_recording():
            self._set_attributes(request, metrics)
            if metrics.model:
                self._add_child_spans(
                    metrics,
                    set_span_in_context(request),
                    request_start,
                    request_end=request_end,
                    clock_offset=clock_offset,
                )
        request.end(_ns(request_end))

    def close(self) -> None:
        thread = threading.Thread(target=self._provider.shutdown, name="span export", daemon=True)
        thread.start()
        thread.join(SHUTDOWN_TIMEOUT)
        if thread.is_alive():  # the SDK would retry for 30 s and delay the exit
            self._exporter.shutdown()

    def _set_attributes(self, request: Span, metrics: RequestMetrics) -> None:
        request.set_attributes(
            {
                "http.request.method": metrics.method,
                "http.route": metrics.api,
                "http.response.status_code": metrics.status,
                "http.response.body.size": metrics.response_bytes,
                "corral.model": metrics.model,
            }
        )
        for name, count in zip(("input", "output"), token_usage(metrics.tail), strict=True):
            if count is not None:
                request.set_attribute(f"gen_ai.usage.{name}_tokens", count)
        if metrics.status >= 500 or metrics.incomplete:
            request.set_attribute("error.type", "incomplete" if metrics.incomplete else str(metrics.status))
            request.set_status(Status(StatusCode.ERROR))

    def _add_child_spans(
        self,
        metrics: RequestMetrics,
        context: Context,
        request_start: float,
        *,
        request_end: float,
        clock_offset: float,
    ) -> None:
        """Create the spans queue, wake and upstream, as far as they apply."""
        pending = metrics.pending
        sent = request_start
        if pending is not None and pending.queue_seconds:
            start = max(request_start, pending.arrived_at)
            sent = min(request_end, start + pending.queue_seconds)
            queue = self._span("queue", context, start)
            if pending.wake:
                self._span("wake", set_span_in_context(queue), start).end(_ns(sent))
            queue.end(_ns(sent))
        if not metrics.forwarded:
            return
        upstream = self._span("upstream", context, sent, kind=SpanKind.CLIENT)
        if metrics.first_byte_at:
            upstream.add_event("first byte", timestamp=_ns(clock_offset + metrics.first_byte_at))
        upstream.end(_ns(request_end))

    def _span(self, name: str, context: Context, start: float, *, kind: SpanKind = SpanKind.INTERNAL) -> Span:
        return self._tracer.start_span(name, context, kind=kind, start_time=_ns(start))


def _carrier(headers: Headers) -> dict[str, str]:
    """Return the trace context headers. ``tracestate`` may have several header lines."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in _CONTEXT:
            key, text = name.decode(), value.decode("latin-1")
            carrier[key] = f"{carrier[key]},{text}" if key in carrier else text
    return carrier


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
