"""Lists everything anew: once before anything is decided, and then slowly, for what the watches may have missed.

A watch that was broken for long starts anew without telling what was deleted meanwhile; the next list tells.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from corral_core.demand import LIFETIME, field_manager
from corral_core.jsonfields import Json
from corral_core.model import API_VERSION, KIND
from corral_kube.client import Kube
from corral_kube.errors import KubeError, NotFound
from corral_operator import logs, paths
from corral_operator.objects import MODEL_LABEL, parse_deployment, parse_service
from corral_operator.observe import Store

ABANDONED = 20 * LIFETIME
"""Seconds after which the demand entry of a gateway that vanished is taken away."""


class Lister:
    """``changed`` is called with the key of every Model of which something was news."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        *,
        namespaces: Sequence[str],
        changed: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._store = store
        self._namespaces = namespaces or ("",)
        self._changed = changed
        self._clock = clock
        self._asked = asyncio.Event()
        self._first = True

    def soon(self) -> None:
        """A watch may have missed something."""
        self._asked.set()

    async def list_all(self) -> None:
        """Raises KubeError."""
        pods, pods_at = await self._list(paths.pods, MODEL_LABEL)
        deployments, deployments_at = await self._list(paths.deployments, MODEL_LABEL)
        services, services_at = await self._list(paths.services, MODEL_LABEL)
        models, models_at = await self._list(paths.models)
        news = self._store.listed_pods(pods, pods_at)
        news |= self._store.deployments.relist(map(parse_deployment, deployments), deployments_at)
        news |= self._store.services.relist(map(parse_service, services), services_at)
        news |= self._store.listed_models(models, models_at, now=self._clock(), first=self._first)
        self._first = False
        for key in news:
            self._changed(key)

    async def first(self) -> None:
        """Lists until it has succeeded."""
        while True:
            try:
                await self.list_all()
            except KubeError as error:
                logs.event("listing_failed", level=logging.WARNING, error=str(error))
                await asyncio.sleep(1.0)
            else:
                return

    async def run(self, period: float) -> None:
        """Lists every ``period`` seconds, and soon after it was asked to."""
        while True:
            try:
                async with asyncio.timeout(period):
                    await self._asked.wait()
                await asyncio.sleep(1.0)
            except TimeoutError:
                pass
            self._asked.clear()
            try:
                await self.list_all()
                await self._sweep()
            except KubeError as error:
                logs.event("listing_failed", level=logging.WARNING, error=str(error))

    async def _sweep(self) -> None:
        """Takes away what gateways that vanished have left in the demand lists."""
        for model, gateway in self._store.abandoned_demand(self._clock(), after=ABANDONED):
            namespace, _, name = model.partition("/")
            body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name, "namespace": namespace}}
            try:
                await self._kube.apply(paths.model_status(namespace, name), body, manager=field_manager(gateway))
            except NotFound:
                continue

    async def _list(self, path: Callable[[str], str], selector: str = "") -> tuple[Iterable[Json], int]:
        listings = [await self._kube.list(path(namespace), selector=selector) for namespace in self._namespaces]
        return [item for listing in listings for item in listing.items], min(
            _number(listing.version) for listing in listings
        )


def _number(version: str) -> int:
    """Versions grow, whatever else the API promises of them; what is no number is older than all."""
    return int(version) if version.isdecimal() else 0
