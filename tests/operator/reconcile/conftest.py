"""Fixtures of the reconciliation tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from corral_core.planning.snapshot import Policy
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.reconcile.inspection_case import InspectionCase
from tests.operator.reconcile.world import World


@pytest.fixture
def policy() -> Policy:
    """Return the planner's policy; a test overrides it with ``parametrize``."""
    return Policy()


@pytest.fixture
async def world(clock: ManualClock, policy: Policy) -> AsyncIterator[World]:
    made = World(clock, policy)
    async with made.running():
        yield made


@pytest.fixture
def case(kube: FakeKube, clock: ManualClock) -> InspectionCase:
    return InspectionCase(kube, clock)
