"""Listing everything anew finds what the watches missed."""

from __future__ import annotations

import asyncio

from corral_core.demand import DemandEntry
from corral_core.jsonfields import dig
from corral_kube.errors import Unreachable
from corral_operator import paths
from corral_operator.lister import ABANDONED, Lister
from corral_operator.observe import Store
from tests.operator import samples
from tests.operator.fake_api import FakeApi
from tests.support.waiting import auntil

NOW = 1_800_000_000.0
MODEL = paths.models("lab", "tiny")


class Bench:
    def __init__(self) -> None:
        self.now = NOW
        self.api = FakeApi()
        self.store = Store()
        self.changed: list[str] = []
        self.lister = Lister(self.api, self.store, namespaces=(), changed=self.changed.append, clock=lambda: self.now)


def test_the_first_listing_is_tried_until_it_succeeds_and_tells_every_model() -> None:
    bench = Bench()
    bench.api.objects[MODEL] = samples.model()
    bench.api.failures = [Unreachable("away")]
    asyncio.run(bench.lister.first())
    assert bench.changed == ["lab/tiny"]


def test_a_deployment_that_vanished_unnoticed_is_noticed() -> None:
    bench = Bench()
    bench.store.heard_deployment(samples.deployment(), kind="ADDED")
    asyncio.run(bench.lister.list_all())
    assert bench.changed == ["lab/tiny"]
    assert not bench.store.deployments.of_model("lab/tiny")


def test_nothing_new_tells_nothing() -> None:
    bench = Bench()
    bench.api.objects[MODEL] = samples.model()
    asyncio.run(bench.lister.list_all())
    asyncio.run(bench.lister.list_all())
    assert bench.changed == ["lab/tiny"]


def test_it_lists_soon_after_it_was_asked_to_although_a_listing_failed() -> None:
    async def scenario() -> None:
        bench = Bench()
        await bench.lister.list_all()
        bench.api.objects[MODEL] = samples.model()
        bench.api.failures = [Unreachable("away")]
        running = asyncio.create_task(bench.lister.run(3600))
        bench.lister.soon()
        await auntil(lambda: not bench.api.failures)
        bench.lister.soon()
        await auntil(lambda: bench.changed == ["lab/tiny"])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_the_entry_of_a_gateway_that_vanished_is_taken_away_in_the_end() -> None:
    async def scenario() -> None:
        bench = Bench()
        entry = DemandEntry("gone", 1, oldest=NOW, renewed=NOW)
        bench.api.objects[MODEL] = samples.model(status={"demand": [entry.to_json()]})
        await bench.lister.list_all()
        running = asyncio.create_task(bench.lister.run(0.01))
        await asyncio.sleep(0)
        assert bench.api.writes == []
        bench.now = NOW + ABANDONED + 1
        await auntil(lambda: dig(bench.api.objects[MODEL], "status", "demand") is None)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
