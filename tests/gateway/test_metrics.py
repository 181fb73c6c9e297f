"""What the gateway tells of its requests, after real ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from corral_core.metrics import render
from corral_core.process_metrics import process_families
from corral_server.gateway.front.limits import Limits
from corral_server.gateway.monitor import SLICE, metrics_at
from tests.support.exposition import families, problems, series, value
from tests.support.fake_upstream import Behaviour, Call, fake_upstream, refuse, reply, stream
from tests.support.gateway import MemoryDirectory, Running, endpoint, entry, gateway_over, run, running_gateway
from tests.support.waiting import auntil

KEY = "default/tiny"


def told(gateway: Running) -> str:
    return render([process_families, gateway.gateway.families])


def held(go: asyncio.Event) -> Behaviour:
    """A whole answer, once ``go`` is set."""

    async def behave(call: Call) -> None:
        await go.wait()
        await reply()(call)

    return behave


def test_a_request_counts_by_model_path_and_code() -> None:
    async def scene() -> None:
        async with gateway_over(reply(body=b'{"done":true}')) as (_, gateway):
            for _ in range(3):
                await gateway.chat()
            await gateway.chat(path="/v1/chat/completions")
            text = told(gateway)
            name = "corral_gateway_requests_total"
            assert value(text, name, model=KEY, api="/api/chat", code="200") == 3
            assert value(text, name, model=KEY, api="/v1/chat/completions", code="200") == 1
            assert value(text, "corral_gateway_time_to_first_byte_seconds_count", model=KEY) == 4
            assert value(text, "corral_gateway_queue_wait_seconds_bucket", model=KEY, le="0.001") == 4
            assert value(text, "corral_gateway_response_bytes_total", model=KEY) == 4 * 13

    run(scene())


def test_a_model_is_told_from_its_beginning_so_that_its_first_request_is_a_change() -> None:
    async def scene() -> None:
        directory = MemoryDirectory.of(entry("first"))
        async with running_gateway(directory) as gateway:
            directory.put(entry("second"))
            for name in ("first", "second"):
                assert value(told(gateway), "corral_gateway_wake_seconds_count", model=f"default/{name}") == 0

    run(scene())


def test_a_scrape_of_many_models_lets_streams_go_on() -> None:
    async def scene() -> None:
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
            assert turns > text.count("\n") / SLICE > 10
            assert families(text).keys() == families(told(gateway)).keys()
            assert problems(text) == ""

    run(scene())


def test_names_and_paths_that_do_not_exist_make_no_series() -> None:
    async def scene() -> None:
        async with gateway_over() as (_, gateway):
            for number in range(20):
                await gateway.chat(f"made-up-{number}")
                await gateway.http.get(f"/made/up/{number}")
            text = told(gateway)
            assert value(text, "corral_gateway_requests_total", model="", api="/api/chat", code="404") == 20
            assert value(text, "corral_gateway_requests_total", model="", api="other", code="404") == 20
            assert "made" not in text

    run(scene())


def test_probes_are_not_requests() -> None:
    async def scene() -> None:
        async with gateway_over() as (_, gateway):
            await gateway.http.get("/healthz")
            await gateway.http.get("/readyz")
            assert series(told(gateway), "corral_gateway_requests_total") == []

    run(scene())


def test_the_series_of_a_deleted_model_go_with_it_even_while_its_last_request_ends() -> None:
    async def scene() -> None:
        go = asyncio.Event()
        async with fake_upstream(held(go)) as upstream:
            directory = MemoryDirectory.of(entry("tiny", upstream.port), entry("other"))
            async with running_gateway(directory) as gateway:
                running = asyncio.create_task(gateway.chat())
                await auntil(lambda: upstream.calls, what="the request is at the runner")
                assert series(told(gateway), "corral_gateway_in_flight") == [{"model": KEY}, {"model": "default/other"}]
                directory.remove()
                go.set()
                await running
                assert KEY not in told(gateway)

    run(scene())


def test_a_model_that_is_woken_shows_how_long_that_took() -> None:
    async def scene() -> None:
        async with fake_upstream(reply()) as upstream:
            directory = MemoryDirectory.of(entry("tiny"))
            async with running_gateway(directory) as gateway:
                waiting = asyncio.create_task(gateway.chat())
                await gateway.until_waiting(1)
                text = told(gateway)
                assert value(text, "corral_gateway_waiting", model=KEY) == 1
                assert value(text, "corral_gateway_slots", model=KEY) == 0
                directory.change(endpoints=(endpoint(upstream.port),))
                await waiting
                text = told(gateway)
                assert value(text, "corral_gateway_wake_seconds_count", model=KEY) == 1
                assert value(text, "corral_gateway_wake_seconds_sum", model=KEY) > 0
                assert value(text, "corral_gateway_queue_wait_seconds_sum", model=KEY) > 0
                assert value(text, "corral_gateway_waiting", model=KEY) == 0
                assert value(text, "corral_gateway_slots", model=KEY) == 4

    run(scene())


def test_a_stream_counts_its_pieces_and_a_client_that_leaves_is_499() -> None:
    async def scene() -> None:
        pieces = [b'{"n":%d}\n' % number for number in range(5)]
        go = asyncio.Event()
        async with gateway_over(held(go), stream(pieces)) as (upstream, gateway):
            await gateway.chat(stream=True)
            reader, writer = await gateway.connect()
            writer.write(b'POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n{"model":"tiny"}')
            await auntil(lambda: len(upstream.calls) == 2, what="the second request is at the runner")
            writer.close()
            await auntil(lambda: 'code="499"' in told(gateway), what="the client is seen to have left")
            text = told(gateway)
            assert value(text, "corral_gateway_requests_total", model=KEY, code="499") == 1
            assert value(text, "corral_gateway_request_seconds_count", model=KEY) == 1
            del reader
            go.set()

    run(scene())


def test_a_request_that_the_connection_answers_counts_with_that_answer() -> None:
    async def scene() -> None:
        limits = Limits(body_timeout=0.2)
        async with running_gateway(MemoryDirectory.of(entry("tiny")), limits=limits) as gateway:
            reader, writer = await gateway.connect()
            writer.write(b"POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n{")
            assert b"408" in await reader.readline()
            writer.close()
            assert value(told(gateway), "corral_gateway_requests_total", api="/api/chat", code="408") == 1

    run(scene())


def test_clients_that_never_made_a_request_count_by_what_they_were_told() -> None:
    async def scene() -> None:
        async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
            for number in range(2):
                reader, writer = await gateway.connect()
                writer.write(b"nonsense\r\n\r\n")
                assert b"400" in await reader.readline()
                writer.close()
                assert value(told(gateway), "corral_gateway_turned_away_total", code="400") == number + 1

    run(scene())


def test_a_fault_of_our_own_counts_as_500(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with gateway_over() as (_, gateway):
            with monkeypatch.context() as patched:
                patched.setattr("corral_server.gateway.metadata.tags", lambda directory: 1 / 0)
                assert (await gateway.http.get("/api/tags")).status_code == 500
            assert value(told(gateway), "corral_gateway_requests_total", api="/api/tags", code="500") == 1

    run(scene())


def test_a_wait_that_a_client_gave_up_counts_in_full_and_a_refusal_is_no_wait() -> None:
    async def scene() -> None:
        async with running_gateway(MemoryDirectory.of(entry("tiny")), max_queue=1) as gateway:
            began = time.perf_counter()
            waiting = asyncio.create_task(gateway.chat())
            await gateway.until_waiting(1)
            assert (await gateway.chat()).status_code == 503
            enough = 0.75 * (time.perf_counter() - began)
            await auntil(lambda: time.perf_counter() - began > 0.3)
            waiting.cancel()
            await gateway.until_waiting(0)
            text = told(gateway)
            for name in ("queue_wait", "wake"):
                assert value(text, f"corral_gateway_{name}_seconds_count", model=KEY) == 1
                assert value(text, f"corral_gateway_{name}_seconds_sum", model=KEY) > max(0.1, enough)

    run(scene())


def test_refusals_and_retries_count_by_reason() -> None:
    async def scene() -> None:
        async with fake_upstream(reply(), refuse()) as upstream:
            directory = MemoryDirectory.of(entry("tiny", upstream.port), entry("cold"))
            async with running_gateway(directory, max_queue=1) as gateway:
                assert (await gateway.chat()).status_code == 200
                waiting = asyncio.create_task(gateway.chat("cold"))
                await gateway.until_waiting(1)
                assert (await gateway.chat("cold")).status_code == 503
                waiting.cancel()
                text = told(gateway)
                assert value(text, "corral_gateway_upstream_retries_total", model=KEY, reason="not_ready") == 1
                assert value(text, "corral_gateway_refused_total", model="default/cold", reason="queue_full") == 1
                assert value(text, "corral_gateway_requests_total", model="default/cold", code="503") == 1

    run(scene())


@asynccontextmanager
async def scraped() -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    async with (
        gateway_over(stream([b'{"n":1}\n'] * 5)) as (_, gateway),
        metrics_at("127.0.0.1", 0, gateway.gateway.families) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as monitor,
    ):
        yield gateway, monitor


def test_a_scrape_is_clean_by_prometheus_own_checks() -> None:
    async def scene() -> None:
        async with scraped() as (gateway, monitor):
            await gateway.chat(stream=True)
            answer = await monitor.get("/metrics")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert families(answer.text)["corral_gateway_queue_wait_seconds"] == "histogram"
            assert problems(answer.text) == ""

    run(scene())


def test_clients_find_no_metrics_at_their_port_and_monitors_nothing_else_at_theirs() -> None:
    async def scene() -> None:
        async with scraped() as (gateway, monitor):
            assert (await gateway.http.get("/metrics")).status_code == 404
            assert (await monitor.get("/api/tags")).status_code == 404

    run(scene())
