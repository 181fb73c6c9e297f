"""Other installations of the operator for the same namespaces: one of them acts, and the others leave it to that one.

Two installations have different Leases, so leader election does not keep them apart.

- The status of a Model names the Lease of the installation that wrote it last (``status.operator``). Only operators may
  write it, so no author of Models can claim anything.
- Another installation is active while its Lease has a holder and changes. Time is measured by this process's own clock.
- Of two active installations the one with the older Lease acts, in each namespace in which both have a Model. The other
  one writes nothing there but its condition SecondInstallation, under a field manager of its own.
- An installation whose Lease may not be read counts as active, and as older if its name sorts first; so of two that may
  not read each other's Lease, one acts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from corral_core.base.json_fields import get_int, get_str
from corral_core.base.timestamps import format_time
from corral_core.model.model import API_VERSION, KIND
from corral_kube.client import KubeClient
from corral_kube.errors import Forbidden, KubeError, NotFound
from corral_operator import logs
from corral_operator.config import FIELD_MANAGER, LeaseConfig
from corral_operator.observe import api_paths
from corral_operator.observe.objects import ModelObject
from corral_operator.report.status import SECOND_INSTALLATION

CHECK_INTERVAL = 15.0
"""Seconds between two reads of the Lease of another installation."""

CLOSE_TIMEOUT = 5.0
"""Seconds to remove the conditions at the end of a term."""


@dataclass(slots=True)
class _Other:
    """Another installation: version and creation of its Lease, and when they were read and when the version changed."""

    version: str = ""
    created: str = ""
    duration: float = 0.0
    changed_at: float = 0.0
    read_at: float = float("-inf")
    readable: bool = True


class OtherInstallations:
    """``created`` returns the creation time of the own Lease as the API server wrote it. Used on one event loop."""

    def __init__(
        self,
        kube: KubeClient,
        config: LeaseConfig,
        *,
        created: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._own = config.installation
        self._created = created
        self._clock = clock
        self._others: dict[str, _Other] = {}
        self._namespaces: dict[str, str] = {}
        self._marked: dict[str, ModelObject] = {}

    async def owner(self, item: ModelObject) -> str | None:
        """Return the installation to which this one leaves the Model, None if this one acts. Raises KubeError.

        The Model's condition says so while it is left to another.
        """
        claim = get_str(item.status, "operator")
        other = claim if claim and claim != self._own else self._namespaces.get(item.namespace, "")
        if other and await self._precedes(other):
            if self._namespaces.get(item.namespace) != other:
                self._namespaces[item.namespace] = other
                logs.event("second_installation", level=logging.ERROR, namespace=item.namespace, active=other)
            await self._mark(item, other)
            return other
        if other and self._namespaces.pop(item.namespace, None) is not None:
            logs.event("second_installation_ended", namespace=item.namespace, inactive=other)
        if item.meta.key in self._marked:
            await self._unmark(item.meta.key)
        return None

    async def close(self) -> None:
        """Remove the conditions."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                for key in list(self._marked):
                    await self._unmark(key)
        except (KubeError, TimeoutError) as error:
            logs.event("second_installation_close_failed", level=logging.WARNING, error=str(error) or "no answer")

    async def _precedes(self, name: str) -> bool:
        """Return whether the installation is active and older than this one."""
        other = self._others.setdefault(name, _Other())
        now = self._clock()
        if now >= other.read_at + CHECK_INTERVAL:
            await self._read(name, other, now)
        if not other.readable:
            return name < self._own
        active = bool(other.version) and now <= other.changed_at + max(other.duration, CHECK_INTERVAL)
        return active and (other.created, name) < (self._created(), self._own)

    async def _read(self, name: str, other: _Other, now: float) -> None:
        namespace, _, lease = name.partition("/")
        try:
            found = await self._kube.get(api_paths.leases(namespace, lease))
        except NotFound:
            other.version = ""
        except Forbidden as error:
            logs.event("other_lease_access_denied", level=logging.WARNING, installation=name, error=str(error))
            other.readable = False
        else:
            held = get_str(found, "spec", "holderIdentity") != ""
            version = get_str(found, "metadata", "resourceVersion") if held else ""
            if version != other.version:
                other.version, other.changed_at = version, now
            other.created = get_str(found, "metadata", "creationTimestamp")
            other.readable = True
            other.duration = float(get_int(found, "spec", "leaseDurationSeconds"))
        other.read_at = now

    async def _mark(self, item: ModelObject, other: str) -> None:
        known = self._marked.get(item.meta.key)
        if known is not None and known.meta.uid == item.meta.uid:
            return
        message = (
            f"the installation {self._own} serves this namespace too and does nothing while {other} is active: "
            "uninstall one of them, or set watchNamespaces so that each has its own namespaces"
        )
        condition = {
            "type": SECOND_INSTALLATION,
            "status": "True",
            "reason": "Standby",
            "message": message,
            "lastTransitionTime": format_time(time.time()),
        }
        await self._apply(item, {"conditions": [condition]})
        self._marked[item.meta.key] = item

    async def _unmark(self, key: str) -> None:
        await self._apply(self._marked[key], {})
        del self._marked[key]

    async def _apply(self, item: ModelObject, status: dict[str, object]) -> None:
        metadata = {"name": item.name, "namespace": item.namespace}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": status}
        manager = f"{FIELD_MANAGER}-{hashlib.sha256(self._own.encode()).hexdigest()[:12]}"
        try:
            await self._kube.apply(api_paths.model_status(item.namespace, item.name), body, manager=manager)
        except NotFound:
            return
