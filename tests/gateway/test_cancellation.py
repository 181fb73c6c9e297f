"""Disconnects from a real runner's stream: generation stops within a step."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.support.gateway import MemoryDirectory, entry, raw_request, running_gateway
from tests.support.runner_process import RunnerProcess, runner_environment, runner_process
from tests.support.waiting import auntil

pytestmark = pytest.mark.process

LONG = b'{"model":"tiny","prompt":"1, 2, 3, 4, 5, 6,","raw":true,"options":{"num_predict":4000,"temperature":0}}'


@pytest.fixture
def runner() -> Iterator[RunnerProcess]:
    """A runner with one slot."""
    with runner_process(runner_environment(OLLAMA_NUM_PARALLEL="1", OLLAMA_CONTEXT_LENGTH="2048")) as process:
        process.wait_ready()
        yield process


@pytest.fixture
async def http(runner: RunnerProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the runner itself."""
    async with httpx.AsyncClient(base_url=runner.url, trust_env=False, timeout=30) as client:
        yield client


async def metric(http: httpx.AsyncClient, name: str) -> float:
    text = (await http.get("/metrics")).text
    found = re.search(rf"^corral_runner_{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


async def steps(http: httpx.AsyncClient) -> float:
    return await metric(http, "batch_sequences_count")


async def is_idle(http: httpx.AsyncClient) -> bool:
    return await metric(http, "running_sequences") == 0


async def status_equals(http: httpx.AsyncClient, name: str, number: int) -> bool:
    """Whether this field of the runner status has this value."""
    return bool((await http.get("/activity")).json()[name] == number)


async def test_the_runner_stops_within_one_step_after_a_disconnect(
    runner: RunnerProcess, http: httpx.AsyncClient
) -> None:
    """At most one step begins after the disconnect; the step under way may end beside it."""
    async with running_gateway(MemoryDirectory.of(entry("tiny", runner.port))) as gateway:
        steps_after = []
        for _ in range(5):  # the first connects to the runner, the others reuse the connection
            reader, writer = await gateway.connect()
            writer.write(raw_request("/api/generate", LONG))
            for _ in range(8):
                assert await reader.read(65536)
            before = await steps(http)
            writer.close()
            await auntil(lambda: is_idle(http), what="the sequence ended")
            steps_after.append(await steps(http) - before)
        assert gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 0
    assert sorted(steps_after)[len(steps_after) // 2] <= 2, steps_after  # one of them while the metrics were sent


async def test_a_disconnected_request_that_is_queued_in_the_runner_never_starts(
    runner: RunnerProcess, http: httpx.AsyncClient
) -> None:
    """More requests arrive than the runner has slots, as from two gateways at the same time."""
    async with running_gateway(MemoryDirectory.of(entry("tiny", runner.port, slots=3))) as gateway:
        reader, first = await gateway.connect()
        first.write(raw_request("/api/generate", LONG))
        assert await reader.read(65536)
        others = [(await gateway.connect())[1] for _ in range(2)]
        for number, writer in enumerate(others, 1):
            writer.write(raw_request("/api/generate", LONG))
            await auntil(lambda: status_equals(http, "waiting", number))  # noqa: B023  awaited here
        for number, writer in enumerate(reversed(others)):
            writer.close()
            await auntil(lambda: status_equals(http, "waiting", 1 - number))  # noqa: B023  awaited here
        assert await status_equals(http, "in_flight", 1)
        text = (await http.get("/metrics")).text
        assert not re.search(r'generations_total{[^}]*reason="(stop|length)"[^}]*} [1-9]', text)
        first.close()
        await auntil(lambda: status_equals(http, "in_flight", 0))
