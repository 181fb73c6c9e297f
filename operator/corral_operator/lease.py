"""Only one operator acts: the one that holds a Lease.

Holding is judged by this process's own clock. Who holds the Lease renews it, by one write that fails when anybody else
has changed it; when renewing fails for two thirds of its
duration, ``hold`` raises LeaseLost, and everything that acts ends before anybody else may take over. A clean end gives
it up. A Lease that nobody has changed for its whole duration is free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from corral_core.errors import CorralError
from corral_core.jsonfields import Json, mapping, text
from corral_core.timestamps import format_micro
from corral_kube.client import Kube
from corral_kube.errors import Conflict, KubeError, NotFound
from corral_operator import logs, paths
from corral_operator.config import LeaseConfig


class LeaseLost(CorralError):
    """Another operator may be acting by now."""


class Lease:
    """``sleep`` takes seconds of ``clock``."""

    def __init__(
        self,
        kube: Kube,
        config: LeaseConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._renewed: float | None = None
        self._foreign: tuple[str, float] | None = None
        self._failing = False
        self._ours: Json | None = None

    def held(self) -> bool:
        """Whether nobody else can be acting."""
        return self._renewed is not None and self._clock() < self._renewed + self._config.duration * 2 / 3

    def stands_by(self) -> bool:
        """Whether the Lease is another one's, as the API server said the last time that it was asked."""
        return self._foreign is not None and not self._failing

    async def acquire(self) -> None:
        """Waits until the Lease is ours."""
        waiting = False
        while not await self._try():
            if not waiting:
                logs.event("lease_awaited", lease=self._config.name)
                waiting = True
            await self._sleep(self._config.duration / 15)
        logs.event("lease_held", lease=self._config.name, identity=self._config.identity)

    async def hold(self) -> None:
        """Renews the Lease for ever. Raises LeaseLost."""
        while True:
            await self._sleep(self._config.duration / 5)
            taken = not await self._try() and self._foreign is not None
            if taken or not self.held():
                self._renewed = None
                raise LeaseLost(f"the lease {self._config.name} could not be renewed")

    async def release(self) -> None:
        """Lets another operator take over at once."""
        if self._renewed is None:
            return
        self._renewed = None
        try:
            current = await self._kube.get(self._path)
            if text(current, "spec", "holderIdentity") == self._config.identity:
                await self._kube.replace(self._path, self._body(current, holder=""))
        except KubeError as error:
            logs.event("lease_not_given_up", level=logging.WARNING, error=str(error))

    @property
    def _path(self) -> str:
        return paths.leases(self._config.namespace, self._config.name)

    async def _try(self) -> bool:
        """Takes or renews the Lease if it is free or ours."""
        asked = self._clock()
        try:
            async with asyncio.timeout(self._config.duration / 3):
                taken = await self._take()
        except (KubeError, TimeoutError) as error:
            if not self._failing:
                logs.event("lease_not_written", level=logging.WARNING, error=str(error) or "no answer in time")
            self._failing = True
            return False
        self._failing = False
        if taken:
            self._renewed = asked
            self._foreign = None
        return taken

    async def _take(self) -> bool:
        if self._ours is not None and await self._renew(self._ours):
            return True
        self._ours = None
        try:
            current = await self._kube.get(self._path)
        except NotFound:
            try:
                self._ours = await self._kube.create(paths.leases(self._config.namespace), self._body({}))
            except Conflict:
                return False
            return True
        return self._free(current) and await self._renew(current)

    async def _renew(self, current: Json) -> bool:
        """Writes the Lease as ours unless somebody has changed it since it was ``current``."""
        try:
            self._ours = await self._kube.replace(self._path, self._body(current))
        except (Conflict, NotFound):
            return False
        return True

    def _free(self, current: Json) -> bool:
        holder = text(current, "spec", "holderIdentity")
        if holder in ("", self._config.identity):
            return True
        version = text(current, "metadata", "resourceVersion")
        if self._foreign is None or self._foreign[0] != version:
            self._foreign = (version, self._clock())
        return self._clock() > self._foreign[1] + self._duration_of(current)

    def _duration_of(self, current: Json) -> float:
        seconds = mapping(current, "spec").get("leaseDurationSeconds")
        return float(seconds) if isinstance(seconds, int) else self._config.duration

    def _body(self, current: Json, holder: str | None = None) -> Json:
        old = mapping(current, "spec")
        holder = self._config.identity if holder is None else holder
        same = text(old, "holderIdentity") == holder
        now = format_micro(time.time())
        transitions = old.get("leaseTransitions")
        count = transitions if isinstance(transitions, int) else 0
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._config.name,
                "namespace": self._config.namespace,
                **({"resourceVersion": text(current, "metadata", "resourceVersion")} if current else {}),
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(self._config.duration)),
                "acquireTime": text(old, "acquireTime") if same and text(old, "acquireTime") else now,
                "renewTime": now,
                "leaseTransitions": count if same or not current else count + 1,
            },
        }
