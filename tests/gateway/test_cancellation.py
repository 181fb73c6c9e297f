"""A client that leaves a real runner's stream: the model stops within a step."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.support.gateway import MemoryDirectory, entry, raw_request, run, running_gateway
from tests.support.runner_process import RunnerProcess, environment, running
from tests.support.waiting import auntil

pytestmark = pytest.mark.process

LONG = b'{"model":"tiny","prompt":"1, 2, 3, 4, 5, 6,","raw":true,"options":{"num_predict":4000,"temperature":0}}'


class Counts:
    """What the runner counts of its engine."""

    def __init__(self, runner: RunnerProcess, http: httpx.AsyncClient) -> None:
        self._url = f"{runner.url}/metrics"
        self._http = http

    async def _value(self, name: str) -> float:
        text = (await self._http.get(self._url)).text
        found = re.search(rf"^corral_runner_{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found[1])

    async def steps(self) -> float:
        return await self._value("batch_sequences_count")

    async def running(self) -> float:
        return await self._value("sequences_running")


def test_the_runner_stops_within_one_step_of_the_model_when_the_client_leaves() -> None:
    """At most one step begins after the client has closed: the one that was under way may end beside it."""

    async def scenario(runner: RunnerProcess) -> None:
        async with (
            running_gateway(MemoryDirectory.of(entry("tiny", runner.port))) as gateway,
            httpx.AsyncClient(trust_env=False, timeout=30) as http,
        ):
            counts = Counts(runner, http)
            steps_after = []
            for _ in range(5):  # the first by a coroutine, the others the short way
                reader, writer = await gateway.connect()
                writer.write(raw_request("/api/generate", LONG))
                for _ in range(8):
                    assert await reader.read(65536)
                before = await counts.steps()
                writer.close()
                await auntil(lambda: _none(counts), what="the sequence ended")
                steps_after.append(await counts.steps() - before)
            queue = gateway.gateway.dispatcher.queue
            assert queue.in_use("default/tiny") == 0
        assert sorted(steps_after)[len(steps_after) // 2] <= 2, steps_after  # one of them while the two were sent

    with running(environment(OLLAMA_NUM_PARALLEL="1", OLLAMA_CONTEXT_LENGTH="2048")) as runner:
        runner.wait_ready()
        run(scenario(runner))


async def _none(counts: Counts) -> bool:
    return await counts.running() == 0


def test_a_request_that_waits_in_the_runner_and_leaves_is_never_begun() -> None:
    """More came than the runner has slots, as from two gateways at a time: what waits there leaves as well."""

    async def scenario(runner: RunnerProcess) -> None:
        async with (
            running_gateway(MemoryDirectory.of(entry("tiny", runner.port, slots=3))) as gateway,
            httpx.AsyncClient(base_url=runner.url, trust_env=False, timeout=30) as http,
        ):
            reader, first = await gateway.connect()
            first.write(raw_request("/api/generate", LONG))
            assert await reader.read(65536)
            others = [(await gateway.connect())[1] for _ in range(2)]
            for number, writer in enumerate(others, 1):
                writer.write(raw_request("/api/generate", LONG))
                await auntil(lambda: _activity(http, "waiting", number))  # noqa: B023  awaited here
            for number, writer in enumerate(reversed(others)):
                writer.close()
                await auntil(lambda: _activity(http, "waiting", 1 - number))  # noqa: B023  awaited here
            assert await _activity(http, "in_flight", 1)
            text = (await http.get("/metrics")).text
            assert not re.search(r'generations_total{[^}]*reason="(stop|length)"[^}]*} [1-9]', text)
            first.close()
            await auntil(lambda: _activity(http, "in_flight", 0))

    with running(environment(OLLAMA_NUM_PARALLEL="1", OLLAMA_CONTEXT_LENGTH="2048")) as runner:
        runner.wait_ready()
        run(scenario(runner))


async def _activity(http: httpx.AsyncClient, name: str, number: int) -> bool:
    return bool((await http.get("/activity")).json()[name] == number)
