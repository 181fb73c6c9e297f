"""Deletion of orphaned pods: pods of Models that are being deleted on a node that no longer reports.

A pod is removed when its kubelet confirms that its containers have ended. The kubelet of an unreachable node confirms
nothing, and Kubernetes keeps the pod while the node may return: the Model would stay in the phase Draining, the
resources of the pod would stay allocated, and a rollout that waits for its end would not finish. Runners keep no state
that two of them could corrupt, so the pod is deleted without a grace period; if the node returns, its kubelet ends the
containers of pods that no longer exist. Inspectors and pullers are replaced only when they are gone: an inspector
writes nothing, and several pullers may write to one store.

A pod whose node reports is left to its kubelet, however long that takes, because it still holds its memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from corral_core.base.clock import steady_time
from corral_kube.client import KubeClient
from corral_kube.errors import APIRequestRejected
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.objects import PodObject

CHECK_INTERVAL = 5.0
"""Seconds between two checks."""

OVERDUE_SECONDS = 30.0
"""Seconds after its deletion deadline at which a pod counts as orphaned if the operator may not read nodes."""


class OrphanedPods:
    def __init__(self, kube: KubeClient, state: ClusterState, *, clock: Callable[[], float] = steady_time) -> None:
        self._kube = kube
        self._state = state
        self._clock = clock

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                await self.delete_orphaned()
            except Exception as error:  # of any kind: the operator must not end because of a cleanup
                logs.event("orphaned_pod_delete_failed", level=logging.WARNING, error=f"{error}"[:500])

    async def delete_orphaned(self) -> None:
        """Delete all orphaned pods; one whose deletion the API server rejects is left. Raises APIServerUnreachable."""
        for pod in [pod for pod in self._pods() if self._orphaned(pod)]:
            namespace, _, name = pod.meta.key.partition("/")
            logs.event("orphaned_pod_deleted", model=pod.meta.model, pod=name, node=pod.node)
            try:
                await self._kube.delete(api_paths.pods(namespace, name), uid=pod.meta.uid, grace=0)
            except APIRequestRejected as error:
                logs.event("orphaned_pod_delete_failed", level=logging.WARNING, pod=name, error=f"{error}"[:500])

    def _pods(self) -> Iterator[PodObject]:
        yield from self._state.pods.all()
        yield from (each.pod for each in self._state.inspectors.all())
        yield from (each.pod for each in self._state.pullers.all())

    def _orphaned(self, pod: PodObject) -> bool:
        deadline = self._state.pod_times.deletion_deadline(pod)
        if deadline is None:
            return False
        alive = self._state.node_alive(pod.node) if pod.node else None
        return self._clock() > deadline + OVERDUE_SECONDS if alive is None else not alive
