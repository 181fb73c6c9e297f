"""Pods that nobody ends are taken away, and no others."""

from __future__ import annotations

import asyncio

import pytest

from corral_core.timestamps import format_seconds
from corral_operator import paths
from corral_operator.lost import OVERDUE, LostPods
from corral_operator.observe import Store
from tests.operator import samples
from tests.operator.fake_api import FakeApi

NOW = 1_800_000_000.0


def swept(*, gone_by: float | None, alive: bool | None) -> list[str]:
    """The pods that are left after one look at one pod on ``node-1``."""
    api, store = FakeApi(), Store()
    raw = samples.pod()
    metadata = raw["metadata"]
    assert isinstance(metadata, dict)
    if gone_by is not None:
        metadata["deletionTimestamp"] = format_seconds(gone_by)
    api.objects[paths.pods("lab", "tiny-0")] = raw
    store.heard_pod(raw, kind="ADDED")
    asyncio.run(LostPods(api, store, alive=lambda node: alive, clock=lambda: NOW).sweep())
    return list(api.objects)


@pytest.mark.parametrize("alive", [True, False, None])
def test_a_pod_that_is_to_stay_stays_wherever_it_is(alive: bool | None) -> None:
    assert swept(gone_by=None, alive=alive)


def test_a_pod_that_is_to_go_goes_at_once_with_its_lost_node() -> None:
    assert not swept(gone_by=NOW + 60, alive=False)


def test_a_pod_on_a_node_that_lives_is_left_to_its_kubelet() -> None:
    assert swept(gone_by=NOW - 1000, alive=True)


def test_where_nodes_may_not_be_read_a_pod_goes_when_it_is_long_overdue() -> None:
    assert swept(gone_by=NOW - OVERDUE, alive=None)
    assert not swept(gone_by=NOW - OVERDUE - 1, alive=None)


def test_another_pod_of_the_same_name_is_left_alone() -> None:
    api = FakeApi()
    api.objects[paths.pods("lab", "tiny-0")] = samples.pod()
    asyncio.run(api.delete(paths.pods("lab", "tiny-0"), uid="an older one", grace=0))
    assert api.objects
