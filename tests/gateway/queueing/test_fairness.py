"""Fairness between the namespaces of API keys that use one Model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path

import httpx
import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.config import parse_weights
from corral_server.wire.errors import QUEUE_FULL
from tests.gateway.test_keys import ALICE, BOB, bearer, key_file
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, endpoint, entry, running_gateway
from tests.support.waiting import auntil


async def test_a_flood_of_one_namespace_leaves_another_its_share_of_queue_and_slots(tmp_path: Path) -> None:
    keys = key_file(tmp_path, alice={"namespaces": ["team-a", "default"]}, bob={"namespaces": ["team-b", "default"]})
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory, max_queue=4, keys_file=keys) as gateway:

            def ask(key: str) -> asyncio.Task[int]:
                body = {"model": "tiny", "from": key}
                return asyncio.create_task(_status(gateway.http.post("/api/chat", json=body, headers=bearer(key))))

            flood = []
            for number in range(1, 5):
                flood.append(ask(ALICE))
                await gateway.until_pending(number)
            refused = await gateway.http.post("/api/chat", json={"model": "tiny"}, headers=bearer(ALICE))
            assert (refused.status_code, refused.json()["error"]) == (503, QUEUE_FULL)
            others = [ask(BOB), ask(BOB)]
            await gateway.until_pending(6)
            assert await ask(BOB) == 503, "its share is half of the limit"
            directory.change(endpoints=(endpoint(up.port, 1),))
            assert set(await asyncio.gather(*flood, *others)) == {200}
    order = [json.loads(call.body)["from"] for call in up.calls]
    assert [order[:4].count(key) for key in (ALICE, BOB)] == [2, 2]


async def test_pending_requests_are_counted_by_namespace() -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory) as gateway:
        asked = asyncio.create_task(gateway.chat())
        await gateway.until_pending(1)
        found = {metric.name: metric for metric in gateway.gateway.families()}
        (sample,) = found["corral_gateway_namespace_pending_requests"].samples
        assert (sample.labels, sample.value) == ({"namespace": "default"}, 1)
        asked.cancel()
        await auntil(lambda: gateway.pending == 0)


def test_weights_are_parsed() -> None:
    assert parse_weights(["team-a=3", "batch = 0.5"]) == {"team-a": 3.0, "batch": 0.5}


@pytest.mark.parametrize("item", ["team-a", "=2", "a=", "a=0", "a=-1", "a=nan", "a=1e3", "a=1001"])
def test_an_invalid_weight_is_an_error_that_says_what_to_write(item: str) -> None:
    with pytest.raises(InvalidSetting, match="write namespace=weight"):
        parse_weights([item])


async def _status(posted: Awaitable[httpx.Response]) -> int:
    return (await posted).status_code
