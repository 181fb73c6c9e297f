"""Leader election: acquiring, renewing, losing and releasing the Lease."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable

import pytest

from corral_core.base.json_fields import JsonObject, get_int, get_object, get_str
from corral_kube.errors import APIServerUnreachable, NotFound
from corral_operator.config import LeaseConfig
from corral_operator.observe import api_paths
from corral_operator.process.lease import Lease, LeaseLost, LeaseNamespaceMissing
from tests.operator.fake_kube import FakeKube

PATH = api_paths.leases("lab", "corral-operator")
START = 1000.0


class SleepClock:
    """Time passes only in ``sleep``; each of ``meanwhile`` is awaited in one of the next sleeps."""

    def __init__(self) -> None:
        self.now = START
        self.meanwhile: list[Callable[[], Awaitable[None]]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.meanwhile:
            await self.meanwhile.pop(0)()


@pytest.fixture
def sleep_clock() -> SleepClock:
    return SleepClock()


@pytest.fixture
def first(kube: FakeKube, sleep_clock: SleepClock) -> Lease:
    return lease(kube, "one", sleep_clock)


@pytest.fixture
def second(kube: FakeKube, sleep_clock: SleepClock) -> Lease:
    return lease(kube, "two", sleep_clock)


def lease(kube: FakeKube, identity: str, clock: SleepClock) -> Lease:
    config = LeaseConfig(namespace="lab", identity=identity, duration=15.0)
    return Lease(kube, config, clock=clock, sleep=clock.sleep)


def holder(kube: FakeKube) -> str:
    return get_str(kube.objects[PATH], "spec", "holderIdentity")


async def test_a_missing_lease_is_created_and_held(kube: FakeKube, first: Lease) -> None:
    assert not first.held()
    await first.acquire()
    assert first.held()
    assert holder(kube) == "one"


async def test_a_lease_is_taken_over_only_after_its_holder_stopped_renewing(
    kube: FakeKube, sleep_clock: SleepClock, first: Lease, second: Lease
) -> None:
    await first.acquire()
    renewed: list[float] = []

    async def renew() -> None:
        assert holder(kube) == "one"
        await first.acquire()
        renewed.append(sleep_clock.now)

    sleep_clock.meanwhile = [renew] * 50
    await second.acquire()
    assert len(renewed) == 50
    assert sleep_clock.now - renewed[-1] > 15
    assert holder(kube) == "two"
    assert get_int(kube.objects[PATH], "spec", "leaseTransitions") == 1


async def test_a_process_with_the_same_identity_acquires_the_lease_at_once(
    kube: FakeKube, sleep_clock: SleepClock, first: Lease
) -> None:
    await first.acquire()
    await lease(kube, "one", sleep_clock).acquire()
    assert (holder(kube), sleep_clock.now) == ("one", START)


async def test_a_missing_namespace_ends_the_election_with_what_to_do(
    kube: FakeKube, monkeypatch: pytest.MonkeyPatch, first: Lease
) -> None:
    async def not_found(path: str, body: JsonObject) -> JsonObject:
        raise NotFound('namespaces "lab" not found')

    monkeypatch.setattr(kube, "create", not_found)
    with pytest.raises(LeaseNamespaceMissing, match="create the namespace lab, or set CORRAL_LEASE_NAMESPACE"):
        await first.acquire()


async def test_a_released_lease_is_acquired_at_once(
    kube: FakeKube, sleep_clock: SleepClock, first: Lease, second: Lease
) -> None:
    await first.acquire()
    await first.release()
    assert holder(kube) == ""
    await second.acquire()
    assert (holder(kube), sleep_clock.now) == ("two", START)


async def test_a_short_outage_keeps_the_lease_and_a_long_one_loses_it(
    kube: FakeKube, sleep_clock: SleepClock, first: Lease
) -> None:
    await first.acquire()
    kube.failures = [APIServerUnreachable("no answer")]
    recovered: list[float] = []

    async def check() -> None:
        assert not kube.failures
        assert first.held()
        recovered.append(sleep_clock.now)

    async def nothing() -> None: ...

    async def begin_outage() -> None:
        kube.failures = [APIServerUnreachable("no answer")] * 1000

    sleep_clock.meanwhile = [nothing, check, begin_outage]
    with pytest.raises(LeaseLost):
        await first.hold()
    assert sleep_clock.now - recovered[0] >= 10
    assert not first.held()


async def test_a_lease_that_another_replica_has_taken_is_lost_at_the_next_renewal(
    kube: FakeKube, sleep_clock: SleepClock, first: Lease, second: Lease
) -> None:
    await first.acquire()
    version, spec = get_str(kube.objects[PATH], "metadata", "resourceVersion"), get_object(kube.objects[PATH], "spec")
    edited = {"metadata": {"resourceVersion": version}, "spec": {**spec, "holderIdentity": ""}}
    await kube.replace(PATH, edited)
    await second.acquire()
    assert sleep_clock.now == START
    with pytest.raises(LeaseLost):
        await first.hold()
    assert sleep_clock.now == START + 3
    await first.release()
    assert holder(kube) == "two"


async def test_a_renewal_reads_nothing_and_a_deleted_lease_is_created_again(
    kube: FakeKube, monkeypatch: pytest.MonkeyPatch, first: Lease
) -> None:
    await first.acquire()
    reads: list[str] = []
    get = kube.get

    async def recording_get(path: str) -> JsonObject:
        reads.append(path)
        return await get(path)

    monkeypatch.setattr(kube, "get", recording_get)
    await first.acquire()
    assert (reads, holder(kube)) == ([], "one")
    del kube.objects[PATH]
    await first.acquire()
    assert (reads, holder(kube)) == ([PATH], "one")


async def test_a_renewal_without_a_response_loses_the_lease_before_another_replica_may_take_it(
    kube: FakeKube, monkeypatch: pytest.MonkeyPatch
) -> None:
    duration = 1.5
    held = Lease(kube, LeaseConfig(namespace="lab", identity="one", duration=duration))
    await held.acquire()
    acquired = time.monotonic()

    async def hang(path: str, body: JsonObject) -> JsonObject:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(kube, "replace", hang)
    with pytest.raises(LeaseLost):
        await held.hold()
    assert time.monotonic() - acquired < duration


@pytest.mark.parametrize("in_backup", [True, False])
async def test_a_restored_api_server_ends_the_term(
    kube: FakeKube, sleep_clock: SleepClock, first: Lease, *, in_backup: bool
) -> None:
    await first.acquire()
    backup = copy.deepcopy(kube.objects) if in_backup else {}
    kube.version += 1000

    async def restore() -> None:
        kube.objects, kube.version = backup, 200

    async def renewed() -> None: ...

    sleep_clock.meanwhile = [renewed, restore]
    with pytest.raises(LeaseLost, match="restored from a backup"):
        await first.hold()
    assert sleep_clock.now == START + 6
    await lease(kube, "one", sleep_clock).acquire()
    assert holder(kube) == "one"
