"""Spans arrive at a collector that speaks OTLP over HTTP; without one nothing of tracing is even imported."""

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

from corral_core.errors import InvalidSetting
from corral_server.gateway.monitor import MonitorSettings, open_sinks
from corral_server.gateway.tracing import LAST
from tests.support.fake_upstream import Behaviour, Call, fake_upstream, reply
from tests.support.gateway import MemoryDirectory, endpoint, entry, gateway_over, run, running_gateway

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


def exporting(monkeypatch: pytest.MonkeyPatch, address: str) -> dict[str, str]:
    """The environment with a collector at this address."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "NO_PROXY": "127.0.0.1"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return environ


def traced(
    monkeypatch: pytest.MonkeyPatch, *, warm: bool, context: dict[str, str], answer: Behaviour | None = None
) -> dict[str, Span]:
    """The spans of one request, by name."""
    with collector() as (address, spans):
        environ = exporting(monkeypatch, address)

        async def scene() -> None:
            async with (
                fake_upstream(answer) as upstream,
                open_sinks(QUIET, environ) as sinks,
            ):
                ready = endpoint(upstream.port)
                directory = MemoryDirectory.of(entry("tiny", *([upstream.port] if warm else [])))
                async with running_gateway(directory, sinks=sinks) as gateway:
                    asked = asyncio.create_task(gateway.http.post("/api/chat", json={"model": "tiny"}, headers=context))
                    if not warm:
                        await gateway.until_waiting(1)
                        directory.change(endpoints=(ready,))
                    await asked
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


def test_the_context_goes_to_the_runner_as_it_came_without_a_collector_too() -> None:
    async def scene() -> None:
        async with gateway_over() as (upstream, gateway):
            for _ in range(2):  # on a new connection, and the short way
                await gateway.http.post("/api/chat", json={"model": "tiny"}, headers=CONTEXT)
            assert len(upstream.calls) == 2
            for call in upstream.calls:
                assert {name: call.headers[name] for name in CONTEXT} == CONTEXT

    run(scene())


def test_a_warm_request_without_a_context_begins_a_trace_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = traced(monkeypatch, warm=True, context={})
    assert set(spans) == {"POST /api/chat", "upstream"}
    assert spans["POST /api/chat"].parent_span_id == b""


def test_a_client_that_does_not_want_to_be_traced_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert traced(monkeypatch, warm=True, context=unsampled) == {}


def described(span: Span) -> dict[str, str]:
    """The span's attributes, each as its value's text."""
    return {one.key: str(one.value).split(": ", 1)[1].strip().strip('"') for one in span.attributes}


def test_a_request_is_described_in_opentelemetry_s_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """The spans of a request for a cold Model whose client leaves, or that is refused when nothing may wait."""
    with collector() as (address, spans):
        environ = exporting(monkeypatch, address)

        async def scene() -> None:
            async with (
                open_sinks(QUIET, environ) as sinks,
                running_gateway(MemoryDirectory.of(entry("tiny")), sinks=sinks, max_queue=max_queue) as gateway,
            ):
                asked = asyncio.create_task(gateway.chat())
                if max_queue:
                    await gateway.until_waiting(1)
                    asked.cancel()
                    await gateway.until_waiting(0)
                else:
                    assert (await asked).status_code == 503

        run(scene())
    return {span.name: span for span in spans}


def test_a_request_that_its_client_gave_up_was_in_the_queue_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = waiting_and_gone(monkeypatch, max_queue=9)
    assert set(spans) == {"POST /api/chat", "queue", "wake"}
    gone = spans["POST /api/chat"].end_time_unix_nano
    assert 0 <= gone - spans["wake"].end_time_unix_nano < 0.1e9
    assert described(spans["POST /api/chat"])["http.response.status_code"] == "499"


def test_a_request_that_was_refused_at_the_door_was_in_no_queue_and_at_no_runner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(waiting_and_gone(monkeypatch, max_queue=0)) == {"POST /api/chat"}


def test_an_answer_that_failed_is_an_error_with_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_off(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        await call.chunk(b'{"n":1}\n')
        call.close()

    for answer, kind in ((reply(500), "500"), (break_off, "broken")):
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
                open_sinks(QUIET, environ) as sinks,
                running_gateway(MemoryDirectory.of(), sinks=sinks) as gateway,
            ):
                await gateway.http.get("/api/tags")

        run(scene())
    assert [span.name for span in spans] == ["GET /api/tags"]
    assert described(spans[0])["http.request.method"] == "GET"


@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "never answers"])
def test_a_collector_that_is_away_costs_clients_nothing_and_the_end_a_moment(
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
                open_sinks(QUIET, environ) as sinks,
                running_gateway(MemoryDirectory.of(entry("tiny", upstream.port)), sinks=sinks) as gateway,
            ):
                for _ in range(600):  # more than one batch
                    assert (await gateway.chat()).status_code == 200
                ends.append(time.monotonic())

        ends: list[float] = []
        run(scene())
        assert time.monotonic() - ends[0] < LAST + 2


def test_a_protocol_that_is_not_spoken_is_refused() -> None:
    async def scene(environ: dict[str, str]) -> None:
        async with open_sinks(QUIET, environ):
            """Nothing is done."""

    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        with pytest.raises(InvalidSetting, match=name):
            asyncio.run(scene({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: "grpc"}))


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
