"""Removal of the demand entries of gateways that no longer exist.

A gateway removes its own entry, by server-side apply under its own field manager. One that was killed leaves its entry
in the Model's status; it no longer counts (``observe.demand_tracker``) and is removed later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from corral_core.base.clock import steady_time
from corral_core.contracts.demand import ENTRY_TTL, field_manager
from corral_core.model.model import API_VERSION, KIND
from corral_kube.client import KubeClient
from corral_kube.errors import APIRequestRejected, NotFound
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState

STALE_AFTER = 20 * ENTRY_TTL
"""Seconds without a renewal after which an entry is removed."""


class DemandCleanup:
    def __init__(self, kube: KubeClient, state: ClusterState, *, clock: Callable[[], float] = steady_time) -> None:
        self._kube = kube
        self._state = state
        self._clock = clock

    async def run(self, period: float) -> None:
        """Remove stale entries every ``period`` seconds until cancelled."""
        while True:
            await asyncio.sleep(period)
            try:
                await self.remove_stale()
            except Exception as error:  # of any kind: the operator must not end because of a cleanup
                logs.event("demand_cleanup_failed", level=logging.WARNING, error=f"{error}"[:500])

    async def remove_stale(self) -> None:
        """Remove all stale entries, each by an apply without fields under its gateway's field manager.

        An entry whose removal the API server rejects is left. Raises APIServerUnreachable.
        """
        for model, gateway in self._state.demand_tracker.stale_entries(self._clock(), after=STALE_AFTER):
            namespace, _, name = model.partition("/")
            body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name, "namespace": namespace}}
            path = api_paths.model_status(namespace, name)
            try:
                await self._kube.apply(path, body, manager=field_manager(gateway))
            except NotFound:
                continue
            except APIRequestRejected as error:
                logs.event("demand_cleanup_failed", level=logging.WARNING, model=model, error=f"{error}"[:500])
