"""Takes away runner pods that nobody ends: those that are to go, on a node that is lost.

A pod ends when its kubelet says so. That of a lost node says nothing, and Kubernetes keeps the pod for as long as the
node may come back: the Model would drain for ever, its place would stay taken, and a change that waits for its end
would never come. A runner keeps nothing that two of them could spoil, so its pod may go at once; should the node come
back, its kubelet ends what no pod stands for any more. A pod whose node lives is left to its kubelet, however long that
takes, because it still holds its memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from corral_kube.client import Kube
from corral_kube.errors import KubeError
from corral_operator import logs, paths
from corral_operator.objects import PodObject
from corral_operator.observe import Store

EVERY = 5.0
"""Seconds between two looks."""

OVERDUE = 30.0
"""Seconds after a pod should have ended at which, where nodes may not be read, its node is taken for lost."""


class LostPods:
    """``alive`` tells whether a node is: None where that is not known."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        *,
        alive: Callable[[str], bool | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._store = store
        self._alive = alive
        self._clock = clock

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.sweep()
            except KubeError as error:
                logs.event("lost_pod_not_deleted", level=logging.WARNING, error=str(error))

    async def sweep(self) -> None:
        """One look. Raises KubeError."""
        for pod in [pod for pod in self._store.pods.all() if self._lost(pod)]:
            namespace, _, name = pod.meta.key.partition("/")
            logs.event("lost_pod", model=pod.meta.model, pod=name, node=pod.node)
            await self._kube.delete(paths.pods(namespace, name), uid=pod.meta.uid, grace=0)

    def _lost(self, pod: PodObject) -> bool:
        if pod.gone_by is None:
            return False
        alive = self._alive(pod.node) if pod.node else None
        return self._clock() > pod.gone_by + OVERDUE if alive is None else not alive
