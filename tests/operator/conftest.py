"""Fixtures of the operator's tests."""

from __future__ import annotations

import pytest

from corral_operator.observe.cluster_state import ClusterState
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def state(clock: ManualClock) -> ClusterState:
    return ClusterState(clock=clock)
