"""Watch of the GPUs that DRA drivers publish, and of the claims of other pods than runners.

Without ``resource.k8s.io/v1`` (before Kubernetes 1.34) or the permission there are no GPUs of DRA drivers. The claims
of runners are counted with their pods.
"""

from __future__ import annotations

import asyncio
import logging

from corral_kube.client import KubeClient
from corral_kube.errors import Forbidden, KubeError, NotFound
from corral_kube.list_watch import ListWatch
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import Kind
from corral_operator.observe.feed import StateFeed
from corral_operator.observe.labels import MODEL_LABEL


class DraWatch:
    """``available`` is None until ``check_access`` has finished, which tries again after ``retry`` seconds."""

    def __init__(self, kube: KubeClient, feed: StateFeed, *, retry: float = 1.0) -> None:
        self._kube = kube
        self._retry = retry
        self.available: bool | None = None
        unreadable = kube.calls.unreadable
        self._slices = ListWatch(
            kube, api_paths.resource_slices(), feed.of(Kind.RESOURCE_SLICES), log=logs.event, unreadable=unreadable
        )
        self._claims = ListWatch(
            kube,
            api_paths.resource_claims(),
            feed.of(Kind.RESOURCE_CLAIMS),
            log=logs.event,
            selector=f"!{MODEL_LABEL}",
            unreadable=unreadable,
        )

    async def check_access(self) -> None:
        """Ask the API server whether slices and claims exist and may be listed; retry until it answers."""
        while self.available is None:
            try:
                for path in (api_paths.resource_slices(), api_paths.resource_claims()):
                    await self._kube.get(f"{path}?limit=1")
            except (Forbidden, NotFound) as error:
                logs.event("dra_not_available", reason=str(error))
                self.available = False
            except KubeError as error:
                logs.event("list_failed", level=logging.WARNING, error=str(error))
                await asyncio.sleep(self._retry)
            else:
                self.available = True

    async def wait_synced(self) -> None:
        """Wait for the first lists; ``run`` must run beside it."""
        await self._slices.wait_synced()
        await self._claims.wait_synced()

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._slices.run())
            group.create_task(self._claims.run())
