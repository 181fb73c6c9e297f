"""Removal of the demand entries of gateways that no longer exist."""

from __future__ import annotations

import pytest

from corral_core.base.json_fields import get_value
from corral_core.contracts.demand import DemandEntry
from corral_kube.errors import APIRequestRejected
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.reconcile.demand_cleanup import STALE_AFTER, DemandCleanup
from tests.operator import samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.samples import NOW

MODEL = api_paths.models("lab", "tiny")


@pytest.fixture
def cleanup(kube: FakeKube, state: ClusterState, clock: ManualClock) -> DemandCleanup:
    entry = DemandEntry("gone", 1, oldest=NOW, renewed=NOW)
    kube.objects[MODEL] = samples.model(status={"demand": [entry.to_json()]})
    state.apply(Kind.MODELS, kube.objects[MODEL])
    return DemandCleanup(kube, state, clock=clock)


async def test_an_entry_is_removed_when_it_is_stale_and_not_before(
    kube: FakeKube, clock: ManualClock, cleanup: DemandCleanup
) -> None:
    await cleanup.remove_stale()
    assert kube.writes == []
    clock.now += STALE_AFTER + 1
    await cleanup.remove_stale()
    assert get_value(kube.objects[MODEL], "status", "demand") is None


async def test_an_entry_of_a_deleted_model_is_no_error(
    kube: FakeKube, clock: ManualClock, cleanup: DemandCleanup
) -> None:
    del kube.objects[MODEL]
    clock.now += STALE_AFTER + 1
    await cleanup.remove_stale()


async def test_an_entry_that_cannot_be_removed_leaves_the_others(
    kube: FakeKube, state: ClusterState, clock: ManualClock, cleanup: DemandCleanup
) -> None:
    entry = DemandEntry("gone", 1, oldest=NOW, renewed=NOW)
    other = api_paths.models("lab", "other")
    kube.objects[other] = samples.model("other", status={"demand": [entry.to_json()]})
    state.apply(Kind.MODELS, kube.objects[other])
    clock.now += STALE_AFTER + 1
    kube.failures.append(APIRequestRejected("the field manager is too long"))
    await cleanup.remove_stale()
    assert get_value(kube.objects[MODEL], "status", "demand") is not None
    assert get_value(kube.objects[other], "status", "demand") is None
