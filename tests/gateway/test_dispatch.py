"""Who gets a runner and when: slots, order, full queues, demand, and Models that change meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from corral_core.model import ModelSpec
from corral_server.gateway.directory import Endpoint
from corral_server.wire.errors import QUEUE_FULL
from tests.support.fake_upstream import (
    fake_upstream,
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
        assert answer.headers["retry-after"] == "1"

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
