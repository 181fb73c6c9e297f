"""Spans arrive at a collector that speaks OTLP over HTTP; without one nothing of tracing is even imported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from corral_server.gateway.monitor import MonitorSettings, open_sinks
from tests.support.fake_upstream import fake_upstream, reply
from tests.support.gateway import MemoryDirectory, endpoint, entry, run, running_gateway

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
QUIET = MonitorSettings(access_log=0)


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    """Gives its address, and the spans that it gets."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                assert 'string_value: "corral-gateway"' in str(resource.resource)
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", spans
        finally:
            server.shutdown()
            thread.join()


def traced(monkeypatch: pytest.MonkeyPatch, *, warm: bool, context: dict[str, str]) -> dict[str, Span]:
    """The spans of one request, by name."""
    with collector() as (address, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

        async def scene() -> None:
            async with (
                fake_upstream(reply()) as upstream,
                open_sinks(QUIET, {"OTEL_EXPORTER_OTLP_ENDPOINT": address}) as sinks,
            ):
                ready = endpoint(upstream.port)
                directory = MemoryDirectory.of(entry("tiny", *([upstream.port] if warm else [])))
                async with running_gateway(directory, sinks=sinks) as gateway:
                    asked = asyncio.create_task(gateway.http.post("/api/chat", json={"model": "tiny"}, headers=context))
                    if not warm:
                        await gateway.until_waiting(1)
                        directory.change(endpoints=(ready,))
                    assert (await asked).status_code == 200
                sent = upstream.calls[0].headers
                assert {name: sent[name] for name in context} == context

        run(scene())
    return {span.name: span for span in spans}


def test_a_request_that_wakes_a_model_has_spans_for_queue_wake_and_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = traced(monkeypatch, warm=False, context=CONTEXT)
    request, queue, wake, upstream = (spans[name] for name in ("POST /api/chat", "queue", "wake", "upstream"))
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert (queue.parent_span_id, upstream.parent_span_id) == (request.span_id, request.span_id)
    assert wake.parent_span_id == queue.span_id
    assert queue.start_time_unix_nano < queue.end_time_unix_nano <= upstream.start_time_unix_nano
    assert request.start_time_unix_nano <= queue.start_time_unix_nano
    assert [event.name for event in upstream.events] == ["first byte"]
    assert "default/tiny" in str(request.attributes)


def test_a_warm_request_without_a_context_begins_a_trace_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = traced(monkeypatch, warm=True, context={})
    assert set(spans) == {"POST /api/chat", "upstream"}
    assert spans["POST /api/chat"].parent_span_id == b""


def test_a_client_that_does_not_want_to_be_traced_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert traced(monkeypatch, warm=True, context=unsampled) == {}


def test_without_a_collector_tracing_is_not_even_imported() -> None:
    code = (
        "import asyncio, sys\n"
        "from corral_server.gateway import main\n"
        "from corral_server.gateway.monitor import MonitorSettings, open_sinks\n"
        "async def look():\n"
        "    async with open_sinks(MonitorSettings(access_log=0), {}) as sinks:\n"
        "        assert not sinks\n"
        "asyncio.run(look())\n"
        "assert 'corral_server.gateway.tracing' not in sys.modules\n"
        "assert 'opentelemetry.sdk' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
