"""One operator acts: taking, renewing, losing and giving up the Lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from corral_core.jsonfields import Json, integer, text
from corral_kube.errors import Unreachable
from corral_operator import paths
from corral_operator.config import LeaseConfig
from corral_operator.lease import Lease, LeaseLost
from tests.operator.fake_api import FakeApi

PATH = paths.leases("lab", "corral-operator")


class Clock:
    """Time passes only while somebody sleeps; ``meanwhile`` happens in each of the sleeps that it is meant for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: list[Callable[[], Awaitable[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.meanwhile:
            await self.meanwhile.pop(0)()


def lease(api: FakeApi, identity: str, clock: Clock) -> Lease:
    config = LeaseConfig(namespace="lab", identity=identity, duration=15.0)
    return Lease(api, config, clock=clock, sleep=clock.sleep)


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
        renewed: list[float] = []

        async def renew() -> None:
            assert holder(api) == "one"
            await first.acquire()
            renewed.append(clock.now)

        clock.meanwhile = [renew] * 50
        await second.acquire()
        assert len(renewed) == 50
        assert clock.now - renewed[-1] > 15
        assert holder(api) == "two"
        assert integer(api.objects[PATH], "spec", "leaseTransitions") == 1

    run(scenario())


def test_the_same_identity_takes_its_lease_again_at_once() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        await lease(api, "one", clock).acquire()
        await lease(api, "one", clock).acquire()
        assert (holder(api), clock.now) == ("one", 1000.0)

    run(scenario())


def test_a_lease_that_was_given_up_is_taken_at_once() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        first = lease(api, "one", clock)
        await first.acquire()
        await first.release()
        assert holder(api) == ""
        await lease(api, "two", clock).acquire()
        assert (holder(api), clock.now) == ("two", 1000.0)

    run(scenario())


def test_a_short_outage_does_not_lose_the_lease_and_a_long_one_does() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        mine = lease(api, "one", clock)
        await mine.acquire()
        api.failures = [Unreachable("away")]
        recovered: list[float] = []

        async def look() -> None:
            assert not api.failures
            assert mine.held()
            recovered.append(clock.now)

        async def nothing() -> None: ...

        async def go_away() -> None:
            api.failures = [Unreachable("away")] * 1000

        clock.meanwhile = [nothing, look, go_away]
        with pytest.raises(LeaseLost):
            await mine.hold()
        assert clock.now - recovered[0] >= 10
        assert not mine.held()

    run(scenario())


def test_a_lease_that_somebody_else_has_taken_is_lost_at_once() -> None:
    async def scenario() -> None:
        api, clock = FakeApi(), Clock()
        mine, other = lease(api, "one", clock), lease(api, "two", clock)
        await mine.acquire()
        await other.acquire()
        taken = clock.now
        with pytest.raises(LeaseLost):
            await mine.hold()
        assert clock.now - taken == 3
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
