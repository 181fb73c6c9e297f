"""Resync: lists of all kinds that kopf watches, before the first plan and then at a slow period.

A list finds what the watches missed. In particular, kopf restarts a watch that was interrupted for long with a new
list, and does not report which objects were deleted meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from corral_core.base.json_fields import JsonObject
from corral_kube.client import KubeClient
from corral_kube.errors import KubeError
from corral_operator import logs
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import Kind
from corral_operator.observe.feed import StateFeed
from corral_operator.observe.labels import MODEL_LABEL
from corral_operator.observe.objects import resource_version

_RETRY_DELAY = 1.0
"""Seconds between two attempts at the first list, and between a request for a list and the list."""

_LISTED: Mapping[Kind, tuple[Callable[[str], str], str]] = {
    Kind.PODS: (api_paths.pods, MODEL_LABEL),
    Kind.DEPLOYMENTS: (api_paths.deployments, MODEL_LABEL),
    Kind.SERVICES: (api_paths.services, MODEL_LABEL),
    Kind.NETWORK_POLICIES: (api_paths.network_policies, MODEL_LABEL),
    Kind.CLAIMS: (api_paths.claims, MODEL_LABEL),
    Kind.MODELS: (api_paths.models, ""),
}
"""Path and label selector of each kind."""


class Resync:
    """``namespaces`` empty means all of them."""

    def __init__(self, kube: KubeClient, feed: StateFeed, *, namespaces: Sequence[str]) -> None:
        self._kube = kube
        self._feed = feed
        self._namespaces = namespaces or ("",)
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Ask for a list soon, since a watch may have missed something."""
        self._requested.set()

    async def list_all(self) -> None:
        """List every kind, and only then update the state. Raises KubeError."""
        listed = {kind: await self._list(path, selector) for kind, (path, selector) in _LISTED.items()}
        for kind, (items, version) in listed.items():
            self._feed.replace(kind, items, version)

    async def list_first(self) -> None:
        """List until it has succeeded once."""
        while True:
            try:
                await self.list_all()
            except KubeError as error:
                logs.event("list_failed", level=logging.WARNING, error=str(error))
                await asyncio.sleep(_RETRY_DELAY)
            else:
                return

    async def run(self, period: float) -> None:
        """List every ``period`` seconds, and soon after each request, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(period):
                    await self._requested.wait()
                await asyncio.sleep(_RETRY_DELAY)
            except TimeoutError:
                pass
            self._requested.clear()
            try:
                await self.list_all()
            except Exception as error:  # of any kind: the watches go on, and the next list may succeed
                logs.event("list_failed", level=logging.WARNING, error=f"{error}"[:500])

    async def _list(self, path: Callable[[str], str], selector: str) -> tuple[list[JsonObject], str]:
        """Return the objects of all namespaces and the oldest version of the lists."""
        listings = [await self._kube.list(path(namespace), selector=selector) for namespace in self._namespaces]
        oldest = min((listing.version for listing in listings), key=resource_version)
        return [item for listing in listings for item in listing.items], oldest
