"""An API key's bounds hold for all gateways together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_server.gateway.keys.file import Key
from corral_server.gateway.keys.rates import Rates, TooMany
from corral_server.gateway.peers.held import Held
from tests.gateway.test_keys import ALICE, BOB, ask, key_file
from tests.gateway.test_several_gateways import Gateways, two_gateways
from tests.support.gateway import Running, run
from tests.support.waiting import auntil


def told(gateway: Running) -> tuple[int, int]:
    """What this gateway knows of Alice's requests at the other."""
    assert gateway.gateway._guard is not None
    return gateway.gateway._guard._rates._elsewhere.use("alice")


async def news(gateways: Gateways, *, one: tuple[int, int], two: tuple[int, int]) -> None:
    """Waits until each has heard so much of the other."""
    await auntil(lambda: (told(gateways.one), told(gateways.two)) == (two, one), what="both know")


def test_more_at_a_time_are_429_wherever_they_run(tmp_path: Path) -> None:
    async def scenario() -> None:
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
            await auntil(lambda: two.gateway.dispatcher.queue.in_use("default/tiny") == 2)
            gateways.runner.gate.set()
            assert {answer.status_code for answer in await asyncio.gather(first, third, other)} == {200}
            await news(gateways, one=(0, 0), two=(0, 0))

    run(scenario())


def test_more_a_minute_are_429_wherever_they_came(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_gateways(keys_file=key_file(tmp_path, alice={"requestsPerMinute": 5})) as gateways:
            one, two = gateways.both
            gateways.ready(slots=4)
            gateways.runner.gate.set()
            assert [(await ask(one, ALICE)).status_code for _ in range(3)] == [200] * 3
            await news(gateways, one=(0, 3), two=(0, 0))
            assert [(await ask(two, ALICE)).status_code for _ in range(3)] == [200, 200, 429]
            await news(gateways, one=(0, 3), two=(0, 2))
            assert (await ask(one, ALICE)).status_code == 429

    run(scenario())


@dataclass
class Others:
    running: int = 0
    lately: int = 0

    def use(self, key: str) -> tuple[int, int]:
        return self.running, self.lately


def test_when_to_come_again_is_a_guess_where_others_made_the_requests() -> None:
    others = Others(lately=10)
    rates, key = Rates(lambda: 100.0, others), Key("a", b"", per_minute=10)
    with pytest.raises(TooMany) as caught:
        rates.take(key)
    assert caught.value.retry_after == 6
    others.lately = 9
    rates.end(rates.take(key), key)
    with pytest.raises(TooMany) as caught:
        rates.take(key)
    assert caught.value.retry_after == 60


def test_what_a_key_uses_is_told_while_it_is_used() -> None:
    now = 0.0
    rates, key = Rates(lambda: now, Others()), Key("a", b"", per_minute=5, concurrent=5)
    changes = []
    rates.changed = lambda: changes.append(rates.levels(["a", "b"]))
    use = rates.take(key)
    rates.end(use, key)
    now = 60.0
    assert rates.levels(["a"]) == {}
    assert changes == [{"a": (1, 1)}, {"a": (0, 1)}]


def test_what_is_told_of_keys_survives_the_wire_and_nonsense_counts_for_nothing() -> None:
    held = Held("g1", {}, {"a": (1, 2)})
    assert Held.from_json({**held.to_json(), "uses": {"a": [1, 2]}}) == held
    said = {"gateway": "g", "uses": {"a": [-1, "x"], "b": 7, "c": [1], "d": [True, 2]}}
    assert Held.from_json(said).uses == {"a": (0, 0), "b": (0, 0), "c": (0, 0), "d": (1, 2)}
