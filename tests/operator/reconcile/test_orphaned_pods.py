"""Deletion of orphaned pods, and of no others."""

from __future__ import annotations

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.base.timestamps import format_time
from corral_kube.errors import Forbidden
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.reconcile.orphaned_pods import OVERDUE_SECONDS, OrphanedPods
from tests.operator import pull_samples, samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.samples import NOW

GRACE = 70
POD = api_paths.pods("lab", "tiny-0")
READY = {True: "True", False: "Unknown"}


class Cluster:
    """One pod on ``node-1``."""

    def __init__(self, kube: FakeKube, state: ClusterState, clock: ManualClock) -> None:
        self._kube = kube
        self._state = state
        self._clock = clock
        self._orphaned_pods = OrphanedPods(kube, state, clock=clock)

    async def keeps_pod(self, *, deleted: float | None, alive: bool | None, clock_error: float = 0.0) -> bool:
        """Return whether the pod is left ``deleted`` seconds after its deletion, None if it is not deleted.

        ``alive`` is of its node, None if nodes are not known; ``clock_error`` is that of the API server.
        """
        raw = samples.pod()
        if deleted is not None:
            deadline = format_time(NOW + GRACE + clock_error)
            raw = samples.with_metadata(raw, deletionTimestamp=deadline, deletionGracePeriodSeconds=GRACE)
        if alive is not None:
            self._state.replace(Kind.NODES, [samples.node("node-1", ready=READY[alive])], "10")
            self._state.replace(Kind.OTHER_PODS, [], "10")
        self._kube.objects[POD] = raw
        self._state.apply(Kind.PODS, raw)
        self._clock.now += deleted or 0.0
        await self._orphaned_pods.delete_orphaned()
        return POD in self._kube.objects


@pytest.fixture
def cluster(kube: FakeKube, state: ClusterState, clock: ManualClock) -> Cluster:
    return Cluster(kube, state, clock)


@pytest.mark.parametrize("alive", [True, False, None])
async def test_a_pod_that_is_not_deleted_stays(cluster: Cluster, alive: bool | None) -> None:
    assert await cluster.keeps_pod(deleted=None, alive=alive)


async def test_a_deleted_pod_on_an_unreachable_node_is_removed_at_once(cluster: Cluster) -> None:
    assert not await cluster.keeps_pod(deleted=0, alive=False)


async def test_a_deleted_pod_on_a_node_that_reports_is_left_to_its_kubelet(cluster: Cluster) -> None:
    assert await cluster.keeps_pod(deleted=GRACE + 1000, alive=True)


@pytest.mark.parametrize("error", [-300.0, 0.0, 300.0])
async def test_without_knowledge_of_nodes_a_pod_stays_until_it_is_overdue(cluster: Cluster, error: float) -> None:
    assert await cluster.keeps_pod(deleted=GRACE + OVERDUE_SECONDS, alive=None, clock_error=error)


@pytest.mark.parametrize("error", [-300.0, 0.0, 300.0])
async def test_without_knowledge_of_nodes_an_overdue_pod_is_removed(cluster: Cluster, error: float) -> None:
    assert not await cluster.keeps_pod(deleted=GRACE + OVERDUE_SECONDS + 1, alive=None, clock_error=error)


async def test_a_pod_whose_deletion_is_rejected_leaves_the_next(
    kube: FakeKube, state: ClusterState, clock: ManualClock
) -> None:
    state.replace(Kind.NODES, [samples.node("node-1", ready="Unknown")], "10")
    state.replace(Kind.OTHER_PODS, [], "10")
    for name in ("a", "b"):
        raw = samples.with_metadata(samples.pod(name=name), deletionTimestamp=format_time(NOW - 1000))
        kube.objects[api_paths.pods("lab", name)] = raw
        state.apply(Kind.PODS, raw)
    kube.failures.append(Forbidden("a webhook rejects it"))
    await OrphanedPods(kube, state, clock=clock).delete_orphaned()
    assert list(kube.objects) == [api_paths.pods("lab", "a")]


@pytest.mark.parametrize("raw", [pull_samples.puller({"running": {}}), pull_samples.inspector()])
async def test_task_pods_of_an_unreachable_node_are_removed_too(
    kube: FakeKube, state: ClusterState, clock: ManualClock, raw: JsonObject
) -> None:
    state.replace(Kind.NODES, [samples.node("node-1", ready="Unknown")], "10")
    state.replace(Kind.OTHER_PODS, [], "10")
    spec = {**get_object(raw, "spec"), "nodeName": "node-1"}
    deleted = {**samples.with_metadata(raw, deletionTimestamp=format_time(NOW)), "spec": spec}
    path = api_paths.pods("lab", get_str(raw, "metadata", "name"))
    kube.objects[path] = deleted
    state.apply(Kind.PODS, deleted)
    await OrphanedPods(kube, state, clock=clock).delete_orphaned()
    assert kube.objects == {}
