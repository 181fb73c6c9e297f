"""An operator that stood still while another took over must not act on what it knew before."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.api import at
from tests.cluster.processes import LOOK, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
LEASE = {"CORRAL_LEASE_DURATION": "3s"}


def test_a_frozen_operator_that_wakes_up_stands_back_and_waits(corral: Installation) -> None:
    first = corral.start_operator("first", **LEASE)
    corral.add("ruled", minReplicas=1)
    corral.wait_phase("ruled", "Ready")
    first.signal(signal.SIGSTOP)
    second = corral.start_operator("second", **LEASE)
    until(lambda: _holder(corral) == "second", 20, what="the second operator's Lease", interval=LOOK)
    corral.edit("ruled", suspend=True)
    corral.wait_replicas("ruled", 0)
    first.signal(signal.SIGCONT)
    until(lambda: "lease_lost" in first.tail(), 20, what="that the first one stands back", interval=LOOK)
    assert corral.replicas("ruled") == 0
    assert _holder(corral) == "second"
    assert first.alive
    assert second.stop() == 0
    until(lambda: _holder(corral) == "first", 20, what="the first operator's turn", interval=LOOK)
    corral.edit("ruled", suspend=False)
    corral.wait_phase("ruled", "Ready")


def _holder(corral: Installation) -> object:
    leases = corral.cluster.api.items(f"/apis/coordination.k8s.io/v1/namespaces/{corral.namespace}/leases")
    return next((at(lease, "spec", "holderIdentity") for lease in leases), None)
