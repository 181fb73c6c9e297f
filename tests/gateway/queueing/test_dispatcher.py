"""Dispatcher behind a gateway: slots, order, full queues, demand, and Models that change."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from corral_core.model.model import ModelSpec
from corral_server.gateway.directory.directory import Endpoint, ModelEntry
from corral_server.gateway.queueing import dispatcher
from corral_server.wire.errors import QUEUE_FULL
from tests.support.fake_upstream import (
    Behaviour,
    Call,
    close_at_once,
    fake_upstream,
    refuse,
    reply,
    reset_at_once,
    stream,
)
from tests.support.gateway import MemoryDirectory, endpoint, entry, gateway_with_upstream, running_gateway
from tests.support.waiting import auntil

SOURCE = "file:///weights/tiny.gguf"


async def test_requests_never_exceed_the_slots_and_keep_their_order() -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            tasks = []
            for number in range(12):
                tasks.append(asyncio.create_task(gateway.chat(number=number)))
                await gateway.until_pending(number + 1)
            directory.change(endpoints=(endpoint(up.port, 1),))
            answers = await asyncio.gather(*tasks)
    assert {answer.status_code for answer in answers} == {200}
    assert up.max_running == 1
    assert [json.loads(call.body)["number"] for call in up.calls] == list(range(12))


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_request_beyond_the_queue_limit_is_rejected_in_the_format_of_its_api(path: str) -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"), entry("other"))
        async with running_gateway(directory, max_queue=2) as gateway:
            held = [asyncio.create_task(gateway.chat(model)) for model in ("tiny", "other")]
            await gateway.until_pending(2)
            answer = await gateway.chat(path=path)
            directory.change("default/tiny", endpoints=(endpoint(up.port),))
            directory.change("default/other", endpoints=(endpoint(up.port),))
            await asyncio.gather(*held)
    error = answer.json()["error"]
    assert answer.status_code == 503
    assert (error if isinstance(error, str) else error["message"]) == QUEUE_FULL
    assert answer.headers["retry-after"] == "5", "nothing has been seen to finish yet"


async def test_a_queue_limit_of_two_admits_one_running_and_two_pending_requests() -> None:
    go_on = asyncio.Event()

    async def slow(call: Call) -> None:
        await go_on.wait()
        await reply()(call)

    async with fake_upstream(slow) as up:
        directory = MemoryDirectory.of(entry("tiny", up.port, slots=1))
        async with running_gateway(directory, max_queue=2) as gateway:
            held = [asyncio.create_task(gateway.chat())]
            await auntil(lambda: len(up.calls) == 1, what="the first one runs")
            held += [asyncio.create_task(gateway.chat()) for _ in range(2)]
            await gateway.until_pending(2)
            refused = await gateway.chat()
            go_on.set()
            answers = await asyncio.gather(*held)
    assert (refused.status_code, refused.json()) == (503, {"error": QUEUE_FULL})
    assert [answer.status_code for answer in answers] == [200] * 3


def queued(name: str = "tiny", *ports: int, slots: int = 4, **bounds: object) -> ModelEntry:
    """Return a Model with queue limits, as in ``spec.queue``."""
    made = entry(name, *ports, slots=slots)
    spec = ModelSpec.model_validate({"source": SOURCE, "queue": bounds})
    return replace(made, model=replace(made.model, spec=spec))


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_request_beyond_max_pending_is_rejected_and_other_models_are_not_affected(path: str) -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(queued(maxPending=2), entry("other"))
        async with running_gateway(directory) as gateway:
            held = [asyncio.create_task(gateway.chat(model)) for model in ("tiny", "tiny", "other", "other")]
            await gateway.until_pending(4)
            answer = await gateway.chat(path=path)
            directory.change("default/tiny", endpoints=(endpoint(up.port),))
            directory.change("default/other", endpoints=(endpoint(up.port),))
            assert {each.status_code for each in await asyncio.gather(*held)} == {200}
    error = answer.json()["error"]
    assert answer.status_code == 503
    text = error if isinstance(error, str) else error["message"]
    assert text == "too many requests are queued for model 'tiny:latest' (limit 2), please try again"
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_a_request_times_out_after_the_max_wait_of_its_model(path: str) -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(queued(maxWait="50ms"))
        async with running_gateway(directory) as gateway:
            answer = await gateway.chat(path=path)
            assert gateway.pending == 0
            assert directory.demands[-1] == ("default/tiny", 0, None)
            directory.change(endpoints=(endpoint(up.port),))
            assert (await gateway.chat()).status_code == 200
    error = answer.json()["error"]
    assert answer.status_code == 504
    text = error if isinstance(error, str) else error["message"]
    assert text == "the request timed out after 50ms in the queue for model 'tiny:latest'"
    assert answer.headers["retry-after"] == "5", "nothing has been seen to finish"
    assert len(up.calls) == 1


async def test_max_wait_does_not_end_a_running_request() -> None:
    gate = asyncio.Event()

    async def slow(call: Call) -> None:
        await gate.wait()
        await reply()(call)

    async with fake_upstream(slow) as up:
        directory = MemoryDirectory.of(queued("tiny", up.port, slots=1, maxWait="100ms"))
        async with running_gateway(directory) as gateway:
            runs = asyncio.create_task(gateway.chat())
            await auntil(lambda: up.calls)
            waits = await gateway.chat()
            gate.set()
            assert (waits.status_code, (await runs).status_code) == (504, 200)


async def test_max_wait_includes_retries_of_a_runner_that_is_not_ready() -> None:
    async with fake_upstream(refuse()) as up:
        directory = MemoryDirectory.of(queued("tiny", up.port, maxWait="300ms"))
        async with running_gateway(directory) as gateway:
            answer = await gateway.chat()
    assert answer.status_code == 504
    assert len(up.calls) > 1


async def test_a_full_queue_of_one_model_does_not_lock_out_another() -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"), entry("other"))
        async with running_gateway(directory, max_queue=3) as gateway:
            flood = [asyncio.create_task(gateway.chat()) for _ in range(3)]
            await gateway.until_pending(3)
            other = asyncio.create_task(gateway.chat("other"))
            await gateway.until_pending(4)
            refused = [await gateway.chat("other"), await gateway.chat()]
            assert directory.demands[-1][:2] == ("default/other", 1)
            for key in ("default/tiny", "default/other"):
                directory.change(key, endpoints=(endpoint(up.port),))
            served = await asyncio.gather(*flood, other)
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.status_code for answer in served} == {200}


async def test_a_retried_request_keeps_its_arrival_time() -> None:
    before = time.time()
    async with fake_upstream(reply(), refuse()) as up:
        directory = MemoryDirectory.of(entry("tiny", up.port))
        async with running_gateway(directory) as gateway:
            assert (await gateway.chat()).status_code == 200
    ((_, _, oldest),) = [said for said in directory.demands if said[1]]
    assert oldest is not None
    assert before <= oldest <= time.time()
    assert int(up.calls[1].headers["corral-queued-ns"]) < 60e9


async def test_pending_requests_of_a_failed_model_get_its_error() -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory) as gateway:
        held = asyncio.create_task(gateway.chat())
        await gateway.until_pending(1)
        directory.change(unavailable_reason="out of memory")
        first = await held
        second = await gateway.chat(path="/v1/chat/completions")
    assert (first.status_code, first.json()) == (500, {"error": "out of memory"})
    assert second.status_code == 500
    assert second.json()["error"]["message"] == "out of memory"


@pytest.mark.parametrize("spec", [ModelSpec(source=SOURCE, suspend=True), ModelSpec(source=SOURCE, replicas=0)])
async def test_a_model_turned_off_by_its_spec_responds_503(spec: ModelSpec) -> None:
    off = entry("tiny")
    off = replace(off, model=replace(off.model, spec=spec), unavailable_reason="turned off")
    async with running_gateway(MemoryDirectory.of(off)) as gateway:
        answer = await gateway.chat()
    assert (answer.status_code, answer.json()) == (503, {"error": "turned off"})
    assert "retry-after" not in answer.headers, "the time is unknown"


async def test_pending_requests_of_a_deleted_model_get_404() -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory) as gateway:
        held = asyncio.create_task(gateway.chat("TINY"))
        await gateway.until_pending(1)
        directory.remove()
        answer = await held
    assert (answer.status_code, answer.json()) == (404, {"error": "model 'TINY' not found"})


async def test_demand_is_reported_while_requests_are_pending_and_then_withdrawn() -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            held = [asyncio.create_task(gateway.chat()) for _ in range(3)]
            await gateway.until_pending(3)
            await auntil(lambda: directory.demands[-1][1] == 3)
            directory.change(endpoints=(endpoint(up.port),))
            await asyncio.gather(*held)
    assert [waiting for _, waiting, _ in directory.demands] == [1, 3, 0]
    assert directory.demands[0][2] is not None


async def test_an_endpoint_with_a_new_address_is_used_immediately() -> None:
    async with fake_upstream() as gone:
        pass
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny", gone.port))
        async with running_gateway(directory) as gateway:
            held = asyncio.create_task(gateway.chat())
            await gateway.until_pending(1)
            directory.change(endpoints=(Endpoint(f"runner-{gone.port}", "127.0.0.1", up.port, 4),))
            assert (await held).status_code == 200


async def test_100_concurrent_requests_are_all_served() -> None:
    pieces = [b'{"n":%d}\n' % number for number in range(50)]
    async with gateway_with_upstream(stream(pieces), slots=3) as (up, gateway):
        answers = await asyncio.gather(*(gateway.chat() for _ in range(100)))
    assert {answer.content for answer in answers} == {b"".join(pieces)}
    assert up.max_running <= 3


async def break_off(call: Call) -> None:
    await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
    await call.chunk(b'{"n":1}\n')
    call.close()


@pytest.mark.parametrize("dies", [close_at_once, reset_at_once, break_off])
@pytest.mark.parametrize("first", [0, 1], ids=["new connection", "idle connection"])
async def test_a_runner_that_fails_during_a_response_gets_no_request_during_its_backoff(
    dies: Behaviour, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        dispatcher, "MIN_BACKOFF_AFTER_FAILURE", 60.0
    )  # so long that only the endpoint's change can end it

    asked = asyncio.Event()

    async def behave(call: Call) -> None:
        await asked.wait()
        await dies(call)

    async with fake_upstream(reply(), *[reply()] * first, behave) as up:
        directory = MemoryDirectory.of(entry("tiny", up.port, slots=1))
        async with running_gateway(directory) as gateway:
            for _ in range(first):
                await gateway.chat()
            broken = asyncio.create_task(gateway.chat())
            await auntil(lambda: len(up.calls) == first + 1)
            waiting = [asyncio.create_task(gateway.chat()) for _ in range(2)]
            await gateway.until_pending(2)
            asked.set()
            await broken
            assert gateway.pending == 2
            assert len(up.calls) == first + 1
            directory.change(endpoints=(endpoint(up.port, 2),))
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def test_a_reachable_runner_gets_requests_for_all_slots_before_its_first_response() -> None:
    together = asyncio.Event()

    async def behave(call: Call) -> None:
        if up.running == 3:
            together.set()
        await together.wait()
        await reply()(call)

    async with fake_upstream(behave, close_at_once) as up:
        directory = MemoryDirectory.of(entry("tiny", up.port, slots=3))
        async with running_gateway(directory) as gateway:
            assert (await gateway.chat()).status_code == 500
            answers = await asyncio.gather(*(gateway.chat() for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
