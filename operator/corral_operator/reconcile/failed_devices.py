"""Replacement of runners whose GPU has failed.

Such a runner is not ready, so no request reaches it, but its container runs, and a restart in place would give it the
same GPU. Its pod is deleted: the running requests end within the grace period, and the Deployment makes a new pod,
which gets a GPU that the device plugin still offers, or waits for one. A pod that is younger than ``MIN_AGE`` is left
for now, so that a GPU that fails at every start costs one start a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from corral_core.base.clock import steady_time
from corral_core.contracts.runner_status import RunnerStatus
from corral_kube.client import KubeClient
from corral_kube.errors import APIRequestRejected
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.objects import PodObject
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.reconcile.metrics import PlanMetrics
from corral_operator.report.event_recorder import EventRecorder
from corral_operator.report.events import GPU_FAILED, device_event

CHECK_INTERVAL = 5.0
"""Seconds between two checks."""

MIN_AGE = 60.0
"""Seconds for which a pod runs at least before it is replaced."""


def with_device_failure(pod: PodObject, status: RunnerStatus | None) -> PodObject:
    """Return the pod with the failure that its runner reports of a GPU, if it has no other one."""
    if status is None or not status.device_failure or pod.failure is not None:
        return pod
    return replace(pod, failure=PodFailure(GPU_FAILED, _message(pod, status), "Loading"))


def _message(pod: PodObject, status: RunnerStatus) -> str:
    advice = "the pod is replaced; if the next one gets the same GPU, cordon the node, and reset or replace the GPU"
    return f"{status.device_failure} on node {pod.node}: {advice}"


class FailedDevices:
    def __init__(
        self,
        kube: KubeClient,
        state: ClusterState,
        metrics: PlanMetrics,
        recorder: EventRecorder,
        *,
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self._kube = kube
        self._state = state
        self._metrics = metrics
        self._recorder = recorder
        self._clock = clock

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                await self.replace_runners()
            except Exception as error:  # of any kind: the operator must not end because of one pod
                logs.event("failed_gpu_replace_failed", level=logging.WARNING, error=f"{error}"[:500])

    async def replace_runners(self) -> None:
        """Delete all pods whose runner reports a failed GPU. Raises APIServerUnreachable."""
        for pod in self._state.pods.all():
            status = self._state.runner_statuses.get(pod.meta.uid)
            if status is not None and status.device_failure and self._due(pod):
                await self._replace(pod, status)

    def _due(self, pod: PodObject) -> bool:
        if pod.meta.deleted or pod.meta.model in self._state.left_models:
            return False
        return self._clock() >= self._state.pod_times.of(pod).seen_at + MIN_AGE

    async def _replace(self, pod: PodObject, status: RunnerStatus) -> None:
        """Delete the pod and report it; a rejected deletion is tried again at the next check."""
        namespace, _, name = pod.meta.key.partition("/")
        item = self._state.models.get(pod.meta.model)
        try:
            await self._kube.delete(api_paths.pods(namespace, name), uid=pod.meta.uid)
            logs.event(
                "failed_gpu_runner_deleted",
                level=logging.WARNING,
                model=pod.meta.model,
                pod=name,
                node=pod.node,
                reason=status.device_failure,
            )
            self._metrics.gpu_failures += 1
            if item is not None:
                await self._recorder.record(item, device_event(_message(pod, status)))
        except APIRequestRejected as error:
            logs.event("failed_gpu_replace_failed", level=logging.WARNING, pod=name, error=f"{error}"[:500])
