"""Resync: lists find what the watches missed."""

from __future__ import annotations

import asyncio

import pytest

from corral_kube.errors import APIServerUnreachable
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind, StateChange
from corral_operator.observe.feed import StateFeed
from corral_operator.observe.resync import Resync
from tests.operator import samples
from tests.operator.fake_kube import FakeKube
from tests.support.waiting import auntil

MODEL = api_paths.models("lab", "tiny")


@pytest.fixture
def changes() -> list[StateChange]:
    return []


@pytest.fixture
def resync(kube: FakeKube, state: ClusterState, changes: list[StateChange]) -> Resync:
    return Resync(kube, StateFeed(state, changes.append), namespaces=())


async def test_the_first_list_is_retried_until_it_succeeds(
    kube: FakeKube, resync: Resync, changes: list[StateChange]
) -> None:
    kube.objects[MODEL] = samples.model()
    kube.failures = [APIServerUnreachable("no answer")]
    await resync.list_first()
    assert [change.models for change in changes] == [{"lab/tiny"}]


async def test_a_deployment_whose_deletion_was_missed_is_removed(
    state: ClusterState, resync: Resync, changes: list[StateChange]
) -> None:
    state.apply(Kind.DEPLOYMENTS, samples.deployment())
    await resync.list_all()
    assert [change.models for change in changes] == [{"lab/tiny"}]
    assert not state.deployments.of_model("lab/tiny")


async def test_an_unchanged_list_is_no_change(kube: FakeKube, resync: Resync, changes: list[StateChange]) -> None:
    kube.objects[MODEL] = samples.model()
    await resync.list_all()
    await resync.list_all()
    assert len(changes) == 1


async def test_a_requested_list_follows_soon_also_after_one_that_failed(
    kube: FakeKube, resync: Resync, changes: list[StateChange]
) -> None:
    await resync.list_all()
    kube.objects[MODEL] = samples.model()
    kube.failures = [APIServerUnreachable("no answer")]
    running = asyncio.create_task(resync.run(3600))
    resync.request()
    await auntil(lambda: not kube.failures)
    resync.request()
    await auntil(lambda: [change.models for change in changes] == [{"lab/tiny"}])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
