"""Fixtures of the tests of pulls."""

from __future__ import annotations

import pytest

from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.reconcile.pulling.pull_case import PullCase


@pytest.fixture
def case(kube: FakeKube, clock: ManualClock) -> PullCase:
    return PullCase(kube, clock)
