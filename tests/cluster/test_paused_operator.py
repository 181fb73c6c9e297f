"""A paused operator, after which another became the leader, must not act on its old state."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.api import at
from tests.cluster.installation import POLL_INTERVAL, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
LEASE = {"CORRAL_LEASE_DURATION": "3s"}


def test_an_operator_that_resumes_after_losing_its_lease_becomes_a_standby(corral: Installation) -> None:
    first = corral.start_operator("first", **LEASE)
    corral.add("ruled", minReplicas=1)
    corral.wait_phase("ruled", "Ready")
    first.signal(signal.SIGSTOP)
    second = corral.start_operator("second", **LEASE)
    until(lambda: _holder(corral) == "second", 20, what="the second operator's Lease", interval=POLL_INTERVAL)
    corral.edit("ruled", suspend=True)
    corral.wait_replicas("ruled", 0)
    first.signal(signal.SIGCONT)
    until(lambda: "lease_lost" in first.tail(), 20, what="the end of the first operator's term", interval=POLL_INTERVAL)
    assert corral.replicas("ruled") == 0
    assert _holder(corral) == "second"
    assert first.alive
    assert second.stop() == 0
    until(lambda: _holder(corral) == "first", 20, what="the first operator's Lease", interval=POLL_INTERVAL)
    corral.edit("ruled", suspend=False)
    corral.wait_phase("ruled", "Ready")


def _holder(corral: Installation) -> object:
    leases = corral.cluster.api.items(f"/apis/coordination.k8s.io/v1/namespaces/{corral.namespace}/leases")
    return next((at(lease, "spec", "holderIdentity") for lease in leases), None)
