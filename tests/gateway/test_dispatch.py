"""Who gets a runner and when: slots, order, full queues, demand, and Models that change meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from corral_core.model import ModelSpec
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.gateway.routing import dispatch
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
from tests.support.gateway import MemoryDirectory, endpoint, entry, gateway_over, run, running_gateway
from tests.support.waiting import auntil

SOURCE = "file:///weights/tiny.gguf"


def test_slots_are_never_exceeded_and_order_is_kept() -> None:
    async def scenario() -> None:
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(entry("tiny"))
            async with running_gateway(directory) as gateway:
                tasks = []
                for number in range(12):
                    tasks.append(asyncio.create_task(gateway.chat(number=number)))
                    await gateway.until_waiting(number + 1)
                directory.change(endpoints=(endpoint(up.port, 1),))
                answers = await asyncio.gather(*tasks)
        assert {answer.status_code for answer in answers} == {200}
        assert up.most == 1
        assert [json.loads(call.body)["number"] for call in up.calls] == list(range(12))

    run(scenario())


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_one_more_than_the_queue_holds_is_refused_in_the_format_of_its_path(path: str) -> None:
    async def scenario() -> None:
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(entry("tiny"), entry("other"))
            async with running_gateway(directory, max_queue=2) as gateway:
                held = [asyncio.create_task(gateway.chat(model)) for model in ("tiny", "other")]
                await gateway.until_waiting(2)
                answer = await gateway.chat(path=path)
                directory.change("default/tiny", endpoints=(endpoint(up.port),))
                directory.change("default/other", endpoints=(endpoint(up.port),))
                await asyncio.gather(*held)
        error = answer.json()["error"]
        assert answer.status_code == 503
        assert (error if isinstance(error, str) else error["message"]) == QUEUE_FULL
        assert answer.headers["retry-after"] == "5", "nothing has been seen to finish yet"

    run(scenario())


def test_a_queue_of_two_takes_the_one_that_runs_and_two_that_wait() -> None:
    async def scenario() -> None:
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
                await gateway.until_waiting(2)
                refused = await gateway.chat()
                go_on.set()
                answers = await asyncio.gather(*held)
        assert (refused.status_code, refused.json()) == (503, {"error": QUEUE_FULL})
        assert [answer.status_code for answer in answers] == [200] * 3

    run(scenario())


def queued(name: str = "tiny", *ports: int, slots: int = 4, **bounds: object) -> Entry:
    """A Model with bounds on what waits for it, as in ``spec.queue``."""
    made = entry(name, *ports, slots=slots)
    spec = ModelSpec.model_validate({"source": SOURCE, "queue": bounds})
    return replace(made, model=replace(made.model, spec=spec))


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_one_more_than_may_wait_for_a_model_is_refused_and_others_are_not(path: str) -> None:
    async def scenario() -> None:
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(queued(maxPending=2), entry("other"))
            async with running_gateway(directory) as gateway:
                held = [asyncio.create_task(gateway.chat(model)) for model in ("tiny", "tiny", "other", "other")]
                await gateway.until_waiting(4)
                answer = await gateway.chat(path=path)
                directory.change("default/tiny", endpoints=(endpoint(up.port),))
                directory.change("default/other", endpoints=(endpoint(up.port),))
                assert {each.status_code for each in await asyncio.gather(*held)} == {200}
        error = answer.json()["error"]
        assert answer.status_code == 503
        text = error if isinstance(error, str) else error["message"]
        assert text == "as many requests wait for model 'tiny:latest' as may (2), please try again"
        assert int(answer.headers["retry-after"]) >= 1

    run(scenario())


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_a_request_waits_no_longer_than_its_model_says(path: str) -> None:
    async def scenario() -> None:
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(queued(maxWait="50ms"))
            async with running_gateway(directory) as gateway:
                answer = await gateway.chat(path=path)
                assert gateway.waiting == 0
                assert directory.demands[-1] == ("default/tiny", 0, None)
                directory.change(endpoints=(endpoint(up.port),))
                assert (await gateway.chat()).status_code == 200
        error = answer.json()["error"]
        assert answer.status_code == 504
        text = error if isinstance(error, str) else error["message"]
        assert text == "the request has waited for model 'tiny:latest' as long as it may (50ms)"
        assert answer.headers["retry-after"] == "5", "nothing has been seen to finish"
        assert len(up.calls) == 1

    run(scenario())


def test_a_request_that_runs_is_not_ended_by_the_bound_on_waiting() -> None:
    async def scenario() -> None:
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

    run(scenario())


def test_a_runner_that_keeps_refusing_does_not_hold_a_request_for_longer_than_it_may_wait() -> None:
    async def scenario() -> None:
        async with fake_upstream(refuse()) as up:
            directory = MemoryDirectory.of(queued("tiny", up.port, maxWait="300ms"))
            async with running_gateway(directory) as gateway:
                answer = await gateway.chat()
        assert answer.status_code == 504
        assert len(up.calls) > 1

    run(scenario())


def test_a_flood_for_one_model_does_not_shut_out_another() -> None:
    async def scenario() -> None:
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(entry("tiny"), entry("other"))
            async with running_gateway(directory, max_queue=3) as gateway:
                flood = [asyncio.create_task(gateway.chat()) for _ in range(3)]
                await gateway.until_waiting(3)
                other = asyncio.create_task(gateway.chat("other"))
                await gateway.until_waiting(4)
                refused = [await gateway.chat("other"), await gateway.chat()]
                assert directory.demands[-1][:2] == ("default/other", 1)
                for key in ("default/tiny", "default/other"):
                    directory.change(key, endpoints=(endpoint(up.port),))
                served = await asyncio.gather(*flood, other)
        assert {answer.status_code for answer in refused} == {503}
        assert {answer.status_code for answer in served} == {200}

    run(scenario())


def test_a_retried_request_waits_since_it_arrived() -> None:
    async def scenario() -> None:
        before = time.time()
        async with fake_upstream(reply(), refuse()) as up:
            directory = MemoryDirectory.of(entry("tiny", up.port))
            async with running_gateway(directory) as gateway:
                assert (await gateway.chat()).status_code == 200
        ((_, _, oldest),) = [said for said in directory.demands if said[1]]
        assert oldest is not None
        assert before <= oldest <= time.time()
        assert int(up.calls[1].headers["corral-queued-ns"]) < 60e9

    run(scenario())


def test_waiting_requests_of_a_model_that_fails_get_its_error() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            held = asyncio.create_task(gateway.chat())
            await gateway.until_waiting(1)
            directory.change(failure="out of memory")
            first = await held
            second = await gateway.chat(path="/v1/chat/completions")
        assert (first.status_code, first.json()) == (500, {"error": "out of memory"})
        assert second.status_code == 500
        assert second.json()["error"]["message"] == "out of memory"

    run(scenario())


@pytest.mark.parametrize("spec", [ModelSpec(source=SOURCE, suspend=True), ModelSpec(source=SOURCE, replicas=0)])
def test_a_model_that_a_person_turned_off_answers_503(spec: ModelSpec) -> None:
    async def scenario() -> None:
        off = entry("tiny")
        off = replace(off, model=replace(off.model, spec=spec), failure="turned off")
        async with running_gateway(MemoryDirectory.of(off)) as gateway:
            answer = await gateway.chat()
        assert (answer.status_code, answer.json()) == (503, {"error": "turned off"})
        assert "retry-after" not in answer.headers, "nobody knows when"

    run(scenario())


def test_waiting_requests_of_a_model_that_is_removed_get_a_404() -> None:
    async def scenario() -> None:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory) as gateway:
            held = asyncio.create_task(gateway.chat("TINY"))
            await gateway.until_waiting(1)
            directory.remove()
            answer = await held
        assert (answer.status_code, answer.json()) == (404, {"error": "model 'TINY' not found"})

    run(scenario())


def test_demand_is_stated_while_requests_wait_and_withdrawn_when_they_go() -> None:
    async def scenario() -> None:
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(entry("tiny"))
            async with running_gateway(directory) as gateway:
                held = [asyncio.create_task(gateway.chat()) for _ in range(3)]
                await gateway.until_waiting(3)
                await auntil(lambda: directory.demands[-1][1] == 3)
                directory.change(endpoints=(endpoint(up.port),))
                await asyncio.gather(*held)
        assert [waiting for _, waiting, _ in directory.demands] == [1, 3, 0]
        assert directory.demands[0][2] is not None

    run(scenario())


def test_an_endpoint_that_changes_its_address_is_used_at_once() -> None:
    async def scenario() -> None:
        async with fake_upstream() as gone:
            pass
        async with fake_upstream() as up:
            directory = MemoryDirectory.of(entry("tiny", gone.port))
            async with running_gateway(directory) as gateway:
                held = asyncio.create_task(gateway.chat())
                await gateway.until_waiting(1)
                directory.change(endpoints=(Endpoint(f"runner-{gone.port}", "127.0.0.1", up.port, 4),))
                assert (await held).status_code == 200

    run(scenario())


def test_many_at_once_are_all_answered() -> None:
    async def scenario() -> None:
        pieces = [b'{"n":%d}\n' % number for number in range(50)]
        async with gateway_over(stream(pieces), slots=3) as (up, gateway):
            answers = await asyncio.gather(*(gateway.chat() for _ in range(100)))
        assert {answer.content for answer in answers} == {b"".join(pieces)}
        assert up.most <= 3

    run(scenario())


async def break_off(call: Call) -> None:
    await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
    await call.chunk(b'{"n":1}\n')
    call.close()


@pytest.mark.parametrize("dies", [close_at_once, reset_at_once, break_off])
@pytest.mark.parametrize("first", [0, 1], ids=["new connection", "idle connection"])
def test_a_runner_that_breaks_off_gets_no_other_request_until_it_can_be_gone(
    dies: Behaviour, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "AFTER_BREAK", 60.0)  # so long that only the endpoint's change can end it

    async def scenario() -> None:
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
                await gateway.until_waiting(2)
                asked.set()
                await broken
                assert gateway.waiting == 2
                assert len(up.calls) == first + 1
                directory.change(endpoints=(endpoint(up.port, 2),))
                assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}

    run(scenario())


def test_a_runner_that_is_reached_again_gets_as_many_requests_as_before_although_none_is_answered_yet() -> None:
    async def scenario() -> None:
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

    run(scenario())
