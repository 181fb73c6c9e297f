"""Metrics of the gateway after requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from corral_core.base.process_metrics import process_families
from corral_server.gateway.http_server.limits import Limits
from corral_server.gateway.observability.monitoring import metrics_at
from tests.support.exposition import expose_text, lint_metrics, parse_metric_types, sample_value, series_labels
from tests.support.fake_upstream import Behaviour, Call, fake_upstream, refuse, reply, stream
from tests.support.gateway import (
    MemoryDirectory,
    RunningGateway,
    endpoint,
    entry,
    gateway_with_upstream,
    running_gateway,
)
from tests.support.waiting import auntil

KEY = "default/tiny"


def exposition(gateway: RunningGateway) -> str:
    return expose_text(process_families, gateway.gateway.families)


def held(go: asyncio.Event) -> Behaviour:
    """Respond when ``go`` is set."""

    async def behave(call: Call) -> None:
        await go.wait()
        await reply()(call)

    return behave


async def test_a_request_counts_by_model_path_and_code() -> None:
    async with gateway_with_upstream(reply(body=b'{"done":true}')) as (_, gateway):
        for _ in range(3):
            await gateway.chat()
        await gateway.chat(path="/v1/chat/completions")
        text = exposition(gateway)
        name = "corral_gateway_requests_total"
        assert sample_value(text, name, model=KEY, api="/api/chat", code="200") == 3
        assert sample_value(text, name, model=KEY, api="/v1/chat/completions", code="200") == 1
        assert sample_value(text, "corral_gateway_time_to_first_byte_seconds_count", model=KEY) == 4
        assert sample_value(text, "corral_gateway_queue_wait_seconds_bucket", model=KEY, le="0.001") == 4
        assert sample_value(text, "corral_gateway_response_bytes_total", model=KEY) == 4 * 13


async def test_the_series_of_a_model_exist_before_its_first_request() -> None:
    directory = MemoryDirectory.of(entry("first"))
    async with running_gateway(directory) as gateway:
        directory.put(entry("second"))
        for name in ("first", "second"):
            assert sample_value(exposition(gateway), "corral_gateway_wake_seconds_count", model=f"default/{name}") == 0


async def test_a_scrape_of_many_models_yields_to_the_event_loop() -> None:
    directory = MemoryDirectory.of(*(entry(f"m{number}") for number in range(60)))
    async with (
        running_gateway(directory) as gateway,
        metrics_at("127.0.0.1", 0, gateway.gateway.families) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as monitor,
    ):
        turns = 0
        answer = asyncio.create_task(monitor.get("/metrics"))
        while not answer.done():
            turns += 1
            await asyncio.sleep(0)
        text = (await answer).text
        assert turns > text.count("\n") / 500 > 10
        assert parse_metric_types(text).keys() == parse_metric_types(exposition(gateway)).keys()
        assert lint_metrics(text) == ""


async def test_unknown_models_and_paths_add_no_series() -> None:
    async with gateway_with_upstream() as (_, gateway):
        for number in range(20):
            await gateway.chat(f"made-up-{number}")
            await gateway.http.get(f"/made/up/{number}")
        text = exposition(gateway)
        assert sample_value(text, "corral_gateway_requests_total", model="", api="/api/chat", code="404") == 20
        assert sample_value(text, "corral_gateway_requests_total", model="", api="other", code="404") == 20
        assert "made" not in text


async def test_probes_are_not_counted() -> None:
    async with gateway_with_upstream() as (_, gateway):
        await gateway.http.get("/healthz")
        await gateway.http.get("/readyz")
        assert series_labels(exposition(gateway), "corral_gateway_requests_total") == []


async def test_the_series_of_a_deleted_model_are_removed_while_a_request_is_running() -> None:
    go = asyncio.Event()
    async with fake_upstream(held(go)) as upstream:
        directory = MemoryDirectory.of(entry("tiny", upstream.port), entry("other"))
        async with running_gateway(directory) as gateway:
            running = asyncio.create_task(gateway.chat())
            await auntil(lambda: upstream.calls, what="the request is at the runner")
            assert series_labels(exposition(gateway), "corral_gateway_in_flight_requests") == [
                {"model": KEY},
                {"model": "default/other"},
            ]
            directory.remove()
            go.set()
            await running
            assert KEY not in exposition(gateway)


async def test_a_cold_start_is_observed() -> None:
    async with fake_upstream(reply()) as upstream:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            waiting = asyncio.create_task(gateway.chat())
            await gateway.until_pending(1)
            text = exposition(gateway)
            assert sample_value(text, "corral_gateway_pending_requests", model=KEY) == 1
            assert sample_value(text, "corral_gateway_slots", model=KEY) == 0
            directory.change(endpoints=(endpoint(upstream.port),))
            await waiting
            text = exposition(gateway)
            assert sample_value(text, "corral_gateway_wake_seconds_count", model=KEY) == 1
            assert sample_value(text, "corral_gateway_wake_seconds_sum", model=KEY) > 0
            assert sample_value(text, "corral_gateway_queue_wait_seconds_sum", model=KEY) > 0
            assert sample_value(text, "corral_gateway_pending_requests", model=KEY) == 0
            assert sample_value(text, "corral_gateway_slots", model=KEY) == 4


async def test_a_disconnected_client_counts_as_499() -> None:
    pieces = [b'{"n":%d}\n' % number for number in range(5)]
    go = asyncio.Event()
    async with gateway_with_upstream(held(go), stream(pieces)) as (upstream, gateway):
        await gateway.chat(stream=True)
        reader, writer = await gateway.connect()
        writer.write(b'POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n{"model":"tiny"}')
        await auntil(lambda: len(upstream.calls) == 2, what="the second request is at the runner")
        writer.close()
        await auntil(lambda: 'code="499"' in exposition(gateway), what="the client is seen to have left")
        text = exposition(gateway)
        assert sample_value(text, "corral_gateway_requests_total", model=KEY, code="499") == 1
        assert sample_value(text, "corral_gateway_request_duration_seconds_count", model=KEY) == 1
        del reader
        go.set()


async def test_a_request_rejected_by_the_connection_counts_with_its_status() -> None:
    limits = Limits(body_timeout=0.2)
    async with running_gateway(MemoryDirectory.of(entry("tiny")), limits=limits) as gateway:
        reader, writer = await gateway.connect()
        writer.write(b"POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n{")
        assert b"408" in await reader.readline()
        writer.close()
        assert sample_value(exposition(gateway), "corral_gateway_requests_total", api="/api/chat", code="408") == 1


async def test_connections_rejected_before_a_request_count_by_status() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
        for number in range(2):
            reader, writer = await gateway.connect()
            writer.write(b"nonsense\r\n\r\n")
            assert b"400" in await reader.readline()
            writer.close()
            assert (
                sample_value(exposition(gateway), "corral_gateway_rejected_connections_total", code="400") == number + 1
            )


async def test_an_internal_error_counts_as_500(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway_with_upstream() as (_, gateway):
        with monkeypatch.context() as patched:
            patched.setattr("corral_server.gateway.api.metadata.tags", lambda directory: 1 / 0)
            assert (await gateway.http.get("/api/tags")).status_code == 500
        assert sample_value(exposition(gateway), "corral_gateway_requests_total", api="/api/tags", code="500") == 1


async def test_the_queue_time_of_a_disconnected_client_counts_and_a_rejection_has_none() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny")), max_queue=1) as gateway:
        began = time.perf_counter()
        waiting = asyncio.create_task(gateway.chat())
        await gateway.until_pending(1)
        assert (await gateway.chat()).status_code == 503
        enough = 0.75 * (time.perf_counter() - began)
        await auntil(lambda: time.perf_counter() - began > 0.3)
        waiting.cancel()
        await gateway.until_pending(0)
        text = exposition(gateway)
        for name in ("queue_wait", "wake"):
            assert sample_value(text, f"corral_gateway_{name}_seconds_count", model=KEY) == 1
            assert sample_value(text, f"corral_gateway_{name}_seconds_sum", model=KEY) > max(0.1, enough)


async def test_rejections_and_retries_count_by_reason() -> None:
    async with fake_upstream(reply(), refuse()) as upstream:
        directory = MemoryDirectory.of(entry("tiny", upstream.port), entry("cold"))
        async with running_gateway(directory, max_queue=1) as gateway:
            assert (await gateway.chat()).status_code == 200
            waiting = asyncio.create_task(gateway.chat("cold"))
            await gateway.until_pending(1)
            assert (await gateway.chat("cold")).status_code == 503
            waiting.cancel()
            text = exposition(gateway)
            assert sample_value(text, "corral_gateway_upstream_retries_total", model=KEY, reason="not_ready") == 1
            assert (
                sample_value(text, "corral_gateway_rejected_requests_total", model="default/cold", reason="queue_full")
                == 1
            )
            assert sample_value(text, "corral_gateway_requests_total", model="default/cold", code="503") == 1


@asynccontextmanager
async def scraped() -> AsyncIterator[tuple[RunningGateway, httpx.AsyncClient]]:
    async with (
        gateway_with_upstream(stream([b'{"n":1}\n'] * 5)) as (_, gateway),
        metrics_at("127.0.0.1", 0, gateway.gateway.families) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as monitor,
    ):
        yield gateway, monitor


async def test_a_scrape_survives_models_and_requests_that_come_and_go_meanwhile() -> None:
    directory = MemoryDirectory.of(*(entry(f"m{number}") for number in range(40)))
    async with (
        running_gateway(directory) as gateway,
        metrics_at("127.0.0.1", 0, gateway.gateway.families, gateway.server.families) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as monitor,
    ):
        answer = asyncio.create_task(monitor.get("/metrics"))
        turns = 0
        while not answer.done():
            directory.put(entry(f"new{turns}"))
            if turns % 2:
                directory.remove(f"default/new{turns - 1}")
            gateway.gateway.rejected_connections[400 + turns % 100] += 1
            turns += 1
            await asyncio.sleep(0)
        assert (await answer).status_code == 200
        assert turns > 20, "the Models changed between the families"


async def test_an_exposition_passes_the_checks_of_prometheus() -> None:
    async with scraped() as (gateway, monitor):
        await gateway.chat(stream=True)
        answer = await monitor.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert parse_metric_types(answer.text)["corral_gateway_queue_wait_seconds"] == "histogram"
        assert lint_metrics(answer.text) == ""
        answer = await monitor.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0;")
        assert answer.text.endswith("# EOF\n")


async def test_the_metrics_port_serves_only_metrics_and_the_api_port_none() -> None:
    async with scraped() as (gateway, monitor):
        assert (await gateway.http.get("/metrics")).status_code == 404
        assert (await monitor.get("/api/tags")).status_code == 404
