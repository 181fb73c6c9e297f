"""Replacement of the runners whose GPU has failed, and of no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.json_fields import get_str
from corral_kube.errors import Forbidden
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import parse_pod
from corral_operator.reconcile.failed_devices import MIN_AGE, FailedDevices, with_device_failure
from corral_operator.reconcile.metrics import PlanMetrics
from corral_operator.report.event_recorder import EventRecorder
from tests.operator import samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube

POD = api_paths.pods("lab", "tiny-0")
FAILURE = "GPU 0, A100, (GPU-1) reports Xid 79"
FAILED = replace(samples.runner_status(), draining=True, device_failure=FAILURE)


class Cluster:
    """One runner pod, seen first at the present time of ``clock``."""

    def __init__(self, kube: FakeKube, state: ClusterState, clock: ManualClock) -> None:
        self.kube = kube
        self.state = state
        self.clock = clock
        self.metrics = PlanMetrics()
        self.failed_devices = FailedDevices(kube, state, self.metrics, EventRecorder(kube), clock=clock)
        self.add(samples.pod())

    def add(self, raw: dict[str, object]) -> None:
        self.kube.objects[POD] = raw
        self.state.apply(Kind.MODELS, samples.model())
        self.state.apply(Kind.PODS, raw)

    async def keeps_pod(self, *, age: float = MIN_AGE) -> bool:
        self.state.set_runner_status(parse_pod(self.kube.objects[POD]).meta.uid, FAILED)
        self.clock.now += age
        await self.failed_devices.replace_runners()
        return POD in self.kube.objects

    def events(self) -> list[tuple[str, str]]:
        return [
            (get_str(raw, "reason"), get_str(raw, "message"))
            for path, raw in self.kube.objects.items()
            if "/events/" in path
        ]


@pytest.fixture
def cluster(kube: FakeKube, state: ClusterState, clock: ManualClock) -> Cluster:
    return Cluster(kube, state, clock)


async def test_a_runner_with_a_failed_gpu_is_deleted_with_its_grace_period_and_an_event(cluster: Cluster) -> None:
    assert not await cluster.keeps_pod()
    assert cluster.kube.deleted == [(POD, None)]
    assert cluster.metrics.gpu_failures == 1
    (event,) = cluster.events()
    assert event[0] == "GPUFailed"
    assert event[1].startswith(f"{FAILURE} on node node-1: the pod is replaced")


async def test_a_healthy_runner_stays(cluster: Cluster) -> None:
    cluster.state.set_runner_status(parse_pod(samples.pod()).meta.uid, samples.runner_status())
    cluster.clock.now += MIN_AGE
    await cluster.failed_devices.replace_runners()
    assert POD in cluster.kube.objects


async def test_a_young_pod_is_left_for_now(cluster: Cluster) -> None:
    assert await cluster.keeps_pod(age=MIN_AGE - 1)
    assert not await cluster.keeps_pod(age=1)


async def test_a_pod_that_is_being_deleted_is_left(cluster: Cluster) -> None:
    cluster.add(samples.with_metadata(samples.pod(version=20), deletionTimestamp="2026-01-01T00:00:00Z"))
    assert await cluster.keeps_pod()


async def test_the_pods_of_another_installation_are_left(cluster: Cluster) -> None:
    cluster.state.left_models.add("lab/tiny")
    assert await cluster.keeps_pod()


async def test_a_rejected_deletion_is_tried_again_and_reported_once(cluster: Cluster) -> None:
    cluster.kube.failures.append(Forbidden("a webhook rejects it"))
    assert await cluster.keeps_pod()
    assert not await cluster.keeps_pod(age=0)
    assert len(cluster.events()) == cluster.metrics.gpu_failures == 1


def test_the_failure_of_the_gpu_is_that_of_the_pod() -> None:
    failure = with_device_failure(parse_pod(samples.pod()), FAILED).failure
    assert failure is not None
    assert (failure.reason, failure.phase) == ("GPUFailed", "Loading")
    assert failure.message.startswith(FAILURE)


def test_a_pod_that_fails_otherwise_keeps_its_failure() -> None:
    pod = parse_pod(samples.pod(status=samples.unschedulable("no node")))
    assert with_device_failure(pod, FAILED) == pod
