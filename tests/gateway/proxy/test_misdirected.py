"""An address that belongs to the runner of another Model by now, while the gateway's directory still lists it."""

from __future__ import annotations

import asyncio
from collections import Counter

from corral_server.gateway.directory.directory import Endpoint
from tests.support.fake_engine import FakeEngine
from tests.support.fake_upstream import fake_upstream, reply
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, running_gateway
from tests.support.runner_server import runner_state, serving_state
from tests.support.waiting import auntil

OWNER = "default/tiny uid-tiny"


REFUSED = reply(421, b'{"error":"this runner serves another model"}', connection="close")


def retries_of(gateway: RunningGateway) -> Counter[str]:
    return gateway.gateway.dispatcher._metrics.for_model("default/tiny").retries


def at(*ports: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"runner-{port}", "127.0.0.1", port, 4, OWNER) for port in ports)


async def test_a_prompt_is_not_answered_by_the_runner_of_another_tenant() -> None:
    """Two real runners; the address of the first one was that of the Model's runner until a moment ago."""
    others, own = FakeEngine(), FakeEngine()
    foreign, right = runner_state(others), runner_state(own)
    foreign.name, right.uid = "other/tiny", "uid-tiny"
    with serving_state(foreign) as wrong, serving_state(right) as runner:
        directory = MemoryDirectory.of(entry("tiny", endpoints=at(wrong.port)))
        async with running_gateway(directory) as gateway:
            asked = asyncio.create_task(gateway.chat(stream=False))
            await auntil(lambda: retries_of(gateway)["misdirected"] >= 2)
            assert not asked.done()
            directory.change(endpoints=at(runner.port))
            response = await asked
    assert response.status_code == 200
    assert (len(others.tasks), len(own.tasks)) == (0, 1)


async def test_the_request_is_sent_to_another_runner_of_the_model() -> None:
    async with fake_upstream(REFUSED) as wrong, fake_upstream(reply()) as right:
        directory = MemoryDirectory.of(entry("tiny", endpoints=at(wrong.port, right.port)))
        async with running_gateway(directory) as gateway:
            responses = [await gateway.chat() for _ in range(4)]
            retries = retries_of(gateway)
    assert [response.status_code for response in responses] == [200] * 4
    assert len(right.calls) == 4
    assert retries["misdirected"] > 0
    assert retries["unreachable"] == 0


async def test_the_request_fails_when_no_other_runner_appears_in_time() -> None:
    async with fake_upstream(REFUSED) as wrong:
        directory = MemoryDirectory.of(entry("tiny", endpoints=at(wrong.port)))
        async with running_gateway(directory, connect_retry_timeout=0.3) as gateway:
            response = await gateway.chat()
    assert response.status_code == 500
    assert "serves another model" not in response.text
    assert len(wrong.calls) >= 2


async def test_every_request_to_a_runner_names_its_model_whatever_the_client_sends() -> None:
    async with fake_upstream(reply()) as upstream:
        directory = MemoryDirectory.of(entry("tiny", endpoints=at(upstream.port)))
        async with running_gateway(directory) as gateway:
            body = {"model": "tiny", "prompt": "hi"}
            await gateway.http.post("/api/generate", json=body, headers={"Corral-Model-Identity": "other/tiny"})
            await gateway.http.post("/api/generate", json={"model": "tiny", "keep_alive": 0})
            await gateway.http.get("/api/ps")
    assert [call.path for call in upstream.calls] == ["/api/generate", "/api/generate", "/activity"]
    assert [call.headers["corral-model-identity"] for call in upstream.calls] == [OWNER] * 3


async def test_an_unload_does_not_reach_the_model_of_another_tenant() -> None:
    foreign = runner_state(FakeEngine())
    foreign.name = "other/tiny"
    with serving_state(foreign) as wrong:
        directory = MemoryDirectory.of(entry("tiny", endpoints=at(wrong.port)))
        async with running_gateway(directory) as gateway:
            stopped = await gateway.http.post("/api/generate", json={"model": "tiny", "keep_alive": 0})
            listed = (await gateway.http.get("/api/ps")).json()
        assert stopped.json()["done_reason"] == "unload"
        assert listed == {"models": []}
        assert wrong.http.get("/activity").json()["keep_alive_s"] == 300
