"""Tracing: spans at a collector by OTLP over HTTP."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.observability.monitoring import MonitoringSettings, open_observers
from corral_server.gateway.observability.tracing import SHUTDOWN_TIMEOUT
from tests.support.fake_upstream import Behaviour, Call, fake_upstream, reply
from tests.support.gateway import MemoryDirectory, endpoint, entry, gateway_with_upstream, run, running_gateway

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
QUIET = MonitoringSettings(access_log=0)


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    """Yield the address of a collector and the spans that it receives."""
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
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", spans
        finally:
            server.shutdown()
            thread.join()


def exporting(monkeypatch: pytest.MonkeyPatch, address: str) -> dict[str, str]:
    """Return the environment with a collector at this address."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "NO_PROXY": "127.0.0.1"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return environ


def traced(
    monkeypatch: pytest.MonkeyPatch, *, warm: bool, context: dict[str, str], answer: Behaviour | None = None
) -> dict[str, Span]:
    """Return the spans of one request by name."""
    with collector() as (address, spans):
        environ = exporting(monkeypatch, address)

        async def scene() -> None:
            async with (
                fake_upstream(answer) as upstream,
                open_observers(QUIET, environ) as observers,
            ):
                ready = endpoint(upstream.port)
                directory = MemoryDirectory.of(entry("tiny", *([upstream.port] if warm else [])))
                async with running_gateway(directory, observers=observers) as gateway:
                    asked = asyncio.create_task(gateway.http.post("/api/chat", json={"model": "tiny"}, headers=context))
                    if not warm:
                        await gateway.until_pending(1)
                        directory.change(endpoints=(ready,))
                    await asked
                sent = upstream.calls[0].headers
                assert {name: sent[name] for name in context} == context

        run(scene())
    return {span.name: span for span in spans}


def test_a_cold_start_has_spans_for_queue_wake_and_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_the_trace_context_is_forwarded_unchanged_without_tracing() -> None:
    async with gateway_with_upstream() as (upstream, gateway):
        for _ in range(2):  # on a new connection, and on an idle one
            await gateway.http.post("/api/chat", json={"model": "tiny"}, headers=CONTEXT)
        assert len(upstream.calls) == 2
        for call in upstream.calls:
            assert {name: call.headers[name] for name in CONTEXT} == CONTEXT


def test_a_request_without_trace_context_starts_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = traced(monkeypatch, warm=True, context={})
    assert set(spans) == {"POST /api/chat", "upstream"}
    assert spans["POST /api/chat"].parent_span_id == b""


def test_an_unsampled_trace_context_has_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert traced(monkeypatch, warm=True, context=unsampled) == {}


def described(span: Span) -> dict[str, str]:
    """Return the attributes of a span as text."""
    return {one.key: str(one.value).split(": ", 1)[1].strip().strip('"') for one in span.attributes}


def test_a_span_has_the_attributes_of_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = reply(body=b'{"done":true,"prompt_eval_count":12,"eval_count":34}')
    request = traced(monkeypatch, warm=True, context=CONTEXT, answer=answer)["POST /api/chat"]
    assert request.kind == Span.SPAN_KIND_SERVER
    assert described(request) == {
        "http.request.method": "POST",
        "http.route": "/api/chat",
        "http.response.status_code": "200",
        "http.response.body.size": "52",
        "corral.model": "default/tiny",
        "gen_ai.usage.input_tokens": "12",
        "gen_ai.usage.output_tokens": "34",
    }


def waiting_and_gone(monkeypatch: pytest.MonkeyPatch, *, max_queue: int) -> dict[str, Span]:
    """Return the spans of a pending request whose client disconnects, or that is rejected if ``max_queue`` is 0."""
    with collector() as (address, spans):
        environ = exporting(monkeypatch, address)

        async def scene() -> None:
            async with (
                open_observers(QUIET, environ) as observers,
                running_gateway(MemoryDirectory.of(entry("tiny")), observers=observers, max_queue=max_queue) as gateway,
            ):
                asked = asyncio.create_task(gateway.chat())
                if max_queue:
                    await gateway.until_pending(1)
                    asked.cancel()
                    await gateway.until_pending(0)
                else:
                    assert (await asked).status_code == 503

        run(scene())
    return {span.name: span for span in spans}


def test_the_queue_span_of_a_disconnected_client_ends_with_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = waiting_and_gone(monkeypatch, max_queue=9)
    assert set(spans) == {"POST /api/chat", "queue", "wake"}
    gone = spans["POST /api/chat"].end_time_unix_nano
    assert 0 <= gone - spans["wake"].end_time_unix_nano < 0.1e9
    assert described(spans["POST /api/chat"])["http.response.status_code"] == "499"


def test_a_rejected_request_has_no_queue_and_upstream_spans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(waiting_and_gone(monkeypatch, max_queue=0)) == {"POST /api/chat"}


def test_a_failed_response_has_an_error_type(monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_off(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        call.close()

    for answer, kind in ((reply(500), "500"), (break_off, "incomplete")):
        request = traced(monkeypatch, warm=True, context=CONTEXT, answer=answer)["POST /api/chat"]
        assert described(request)["error.type"] == kind
        assert request.status.code == Status.STATUS_CODE_ERROR
    request = traced(monkeypatch, warm=True, context=CONTEXT, answer=reply(400))["POST /api/chat"]
    assert request.status.code == Status.STATUS_CODE_UNSET


def test_a_span_has_the_method_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (address, spans):
        environ = exporting(monkeypatch, address)

        async def scene() -> None:
            async with (
                open_observers(QUIET, environ) as observers,
                running_gateway(MemoryDirectory.of(), observers=observers) as gateway,
            ):
                await gateway.http.get("/api/tags")

        run(scene())
    assert [span.name for span in spans] == ["GET /api/tags"]
    assert described(spans[0])["http.request.method"] == "GET"


@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "never answers"])
def test_an_unavailable_collector_does_not_delay_requests_and_delays_shutdown_briefly(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if not answers:
            silent.close()
        environ = exporting(monkeypatch, f"http://127.0.0.1:{port}")

        async def scene() -> None:
            async with (
                fake_upstream(reply()) as upstream,
                open_observers(QUIET, environ) as observers,
                running_gateway(MemoryDirectory.of(entry("tiny", upstream.port)), observers=observers) as gateway,
            ):
                for _ in range(600):  # more than one batch
                    assert (await gateway.chat()).status_code == 200
                ends.append(time.monotonic())

        ends: list[float] = []
        run(scene())
        assert time.monotonic() - ends[0] < SHUTDOWN_TIMEOUT + 2


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
async def test_an_unsupported_protocol_is_rejected(name: str) -> None:
    with pytest.raises(InvalidSetting, match=name):
        async with open_observers(QUIET, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: "grpc"}):
            pytest.fail("tracing was set up")


def test_tracing_is_not_imported_without_a_collector() -> None:
    code = (
        "import asyncio, sys\n"
        "from corral_server.gateway import main\n"
        "from corral_server.gateway.observability.monitoring import MonitoringSettings, open_observers\n"
        "async def look():\n"
        "    async with open_observers(MonitoringSettings(access_log=0), {}) as observers:\n"
        "        assert not observers\n"
        "asyncio.run(look())\n"
        "assert 'corral_server.gateway.observability.tracing' not in sys.modules\n"
        "assert 'opentelemetry.sdk' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
