"""Rate limits of API keys over several gateways."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_server.gateway.auth.key_file import ApiKey
from corral_server.gateway.auth.rate_limits import KeyRateLimiter, RateLimitExceeded
from corral_server.gateway.peers.usage import UsageReport
from tests.gateway.test_keys import ALICE, BOB, ask, key_file
from tests.gateway.test_several_gateways import Gateways, two_gateways
from tests.support.gateway import RunningGateway
from tests.support.waiting import auntil


def told(gateway: RunningGateway) -> tuple[int, int]:
    """Return the usage of alice's key at the peer, as this gateway knows it."""
    assert gateway.gateway._authenticator is not None
    return gateway.gateway._authenticator._limiter._peers.key_usage("alice")


async def news(gateways: Gateways, *, one: tuple[int, int], two: tuple[int, int]) -> None:
    """Wait until each gateway has this report of the other."""
    await auntil(lambda: (told(gateways.one), told(gateways.two)) == (two, one), what="both know")


async def test_concurrent_applies_to_all_gateways(tmp_path: Path) -> None:
    async with two_gateways(keys_file=key_file(tmp_path, alice={"concurrent": 2})) as gateways:
        one, two = gateways.both
        gateways.ready(slots=4)
        first = asyncio.create_task(ask(one, ALICE))
        await news(gateways, one=(1, 0), two=(0, 0))
        second = asyncio.create_task(ask(two, ALICE))
        await news(gateways, one=(1, 0), two=(1, 0))
        for gateway in gateways.both:
            assert (await ask(gateway, ALICE)).status_code == 429
        second.cancel()
        await news(gateways, one=(1, 0), two=(0, 0))
        third = asyncio.create_task(ask(two, ALICE))
        other = asyncio.create_task(ask(two, BOB))
        await auntil(lambda: two.gateway.dispatcher.queue.slots_in_use("default/tiny") == 2)
        gateways.runner.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(first, third, other)} == {200}
        await news(gateways, one=(0, 0), two=(0, 0))


async def test_requests_per_minute_applies_to_all_gateways(tmp_path: Path) -> None:
    async with two_gateways(keys_file=key_file(tmp_path, alice={"requestsPerMinute": 5})) as gateways:
        one, two = gateways.both
        gateways.ready(slots=4)
        gateways.runner.gate.set()
        assert [(await ask(one, ALICE)).status_code for _ in range(3)] == [200] * 3
        await news(gateways, one=(0, 3), two=(0, 0))
        assert [(await ask(two, ALICE)).status_code for _ in range(3)] == [200, 200, 429]
        await news(gateways, one=(0, 3), two=(0, 2))
        assert (await ask(one, ALICE)).status_code == 429


@dataclass
class Others:
    running: int = 0
    lately: int = 0

    tokens: tuple[int, int] = (0, 0)

    def key_usage(self, key: str) -> tuple[int, int]:
        return self.running, self.lately

    def key_tokens(self, key: str) -> tuple[int, int]:
        return self.tokens


def test_retry_after_is_estimated_for_requests_at_peers() -> None:
    others = Others(lately=10)
    rates, key = KeyRateLimiter(lambda: 100.0, others), ApiKey("a", b"", requests_per_minute=10)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.start(key)
    assert caught.value.retry_after == 6
    others.lately = 9
    rates.finish(rates.start(key), key)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.start(key)
    assert caught.value.retry_after == 60


def test_the_usage_of_a_key_is_reported_while_it_is_used() -> None:
    now = 0.0
    rates, key = KeyRateLimiter(lambda: now, Others()), ApiKey("a", b"", requests_per_minute=5, concurrent=5)
    changes = []
    rates.on_change = lambda: changes.append(rates.usage(["a", "b"]))
    use = rates.start(key)
    rates.finish(use, key)
    now = 60.0
    assert rates.usage(["a"]) == {}
    assert changes == [{"a": (1, 1)}, {"a": (0, 1)}]


def test_key_usage_survives_a_json_round_trip_and_invalid_values_count_as_zero() -> None:
    held = UsageReport("g1", {}, {"a": (1, 2)})
    assert UsageReport.from_json({**held.to_json(), "key_usage": {"a": [1, 2]}}) == held
    said = {"gateway": "g", "key_usage": {"a": [-1, "x"], "b": 7, "c": [1], "d": [True, 2]}}
    assert UsageReport.from_json(said).key_usage == {"a": (0, 0), "b": (0, 0), "c": (0, 0), "d": (1, 2)}
