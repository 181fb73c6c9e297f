"""One operator acts: taking, renewing, losing and giving up the Lease."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from corral_core.jsonfields import Json, integer, text
from corral_kube.errors import Unreachable
from corral_operator import paths
from corral_operator.config import LeaseConfig
from corral_operator.lease import Lease, LeaseLost
from tests.operator.fake_api import FakeApi
from tests.support.waiting import auntil

PATH = paths.leases("lab", "corral-operator")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lease(api: FakeApi, identity: str, clock: Clock, *, duration: float = 0.15) -> Lease:
    config = LeaseConfig(namespace="lab", identity=identity, duration=duration)
    return Lease(api, config, clock=clock)


def run(coroutine: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 10))


def holder(api: FakeApi) -> str:
    return text(api.objects[PATH], "spec", "holderIdentity")


def test_a_lease_that_does_not_exist_is_made_and_held() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        mine = lease(api, "one", clock)
        assert not mine.held()
        await mine.acquire()
        assert mine.held()
        assert holder(api) == "one"

    run(scenario())


def test_a_lease_that_somebody_renews_is_not_taken_and_one_that_nobody_renews_is() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        first, second = lease(api, "one", clock), lease(api, "two", clock)
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        for _ in range(5):
            clock.now += 0.5
            await first.acquire()
            await asyncio.sleep(0.02)
        assert not waiting.done()
        assert holder(api) == "one"
        while not waiting.done():
            clock.now += 0.5
            await asyncio.sleep(0.01)
        assert holder(api) == "two"
        assert integer(api.objects[PATH], "spec", "leaseTransitions") == 1

    run(scenario())


def test_the_same_identity_takes_its_lease_again_at_once() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        await lease(api, "one", clock, duration=3600).acquire()
        await lease(api, "one", clock, duration=3600).acquire()
        assert holder(api) == "one"

    run(scenario())


def test_a_lease_that_was_given_up_is_taken_at_once() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        first = lease(api, "one", clock, duration=3600)
        await first.acquire()
        await first.release()
        assert holder(api) == ""
        await lease(api, "two", clock, duration=3600).acquire()
        assert holder(api) == "two"

    run(scenario())


def test_a_short_outage_does_not_lose_the_lease_and_a_long_one_does() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        mine = lease(api, "one", clock)
        await mine.acquire()
        holding = asyncio.create_task(mine.hold())
        api.failures = [Unreachable("away")]
        await auntil(lambda: not api.failures)
        assert not holding.done()
        api.failures = [Unreachable("away")] * 1000
        clock.now += 0.15
        with pytest.raises(LeaseLost):
            await holding
        assert not mine.held()

    run(scenario())


def test_a_lease_that_somebody_else_has_taken_is_lost_at_once() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        mine, other = lease(api, "one", clock), lease(api, "two", clock)
        await mine.acquire()
        taking = asyncio.create_task(other.acquire())
        while not taking.done():
            clock.now += 0.06
            await asyncio.sleep(0.005)
        with pytest.raises(LeaseLost):
            await mine.hold()
        await mine.release()
        assert holder(api) == "two"

    run(scenario())


def test_renewing_asks_nothing_and_one_that_was_deleted_is_made_anew() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        mine = lease(api, "one", clock)
        await mine.acquire()
        asked: list[str] = []
        plain = api.get

        async def get(path: str) -> Json:
            asked.append(path)
            return await plain(path)

        api.get = get  # type: ignore[method-assign]  # a listener
        await mine.acquire()
        assert (asked, holder(api)) == ([], "one")
        del api.objects[PATH]
        await mine.acquire()
        assert (asked, holder(api)) == ([PATH], "one")

    run(scenario())
