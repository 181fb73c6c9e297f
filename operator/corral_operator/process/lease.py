"""Leader election: the replica that holds a Lease is the leader.

Invariants:
- Holding is judged by this process's own clock. The leader renews the Lease with one write, which fails if another
  process has changed it.
- When renewing fails for two thirds of the duration, ``hold`` raises LeaseLost at that moment, even while a renewal is
  still running: the leader stops before another replica may take over.
- ``hold`` also raises LeaseLost when the resource version of a renewal is older than before, since etcd was restored
  from a backup: everything that this term has observed may be newer than what exists now.
- A clean shutdown releases the Lease. A Lease that was not changed for its whole duration is free.

Reference: client-go, tools/leaderelection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from corral_core.base.errors import CorralError
from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.base.timestamps import format_micro_time
from corral_kube.client import KubeClient
from corral_kube.errors import Conflict, KubeError, NotFound
from corral_kube.list_watch import is_older
from corral_operator import logs
from corral_operator.config import LeaseConfig
from corral_operator.observe import api_paths


class LeaseNamespaceMissing(CorralError):
    """The namespace of the Lease does not exist."""


class LeaseLost(CorralError):
    """The term is over: another replica may be the leader, or the API server was restored from a backup."""


class Lease:
    """``sleep`` takes seconds of ``clock``."""

    def __init__(
        self,
        kube: KubeClient,
        config: LeaseConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._renewed_at: float | None = None
        self._other_holder: tuple[str, float] | None = None
        self._failing = False
        self._record: JsonObject | None = None
        self._version = ""
        self._restored = False

    def held(self) -> bool:
        """Return whether no other replica can be the leader."""
        return self.remaining() > 0

    def remaining(self) -> float:
        """Return for how many seconds no other replica can be the leader if the Lease is not renewed; 0 or less: none.

        Another replica becomes the leader a third of the duration later, at the earliest.
        """
        if self._renewed_at is None:
            return 0.0
        return self._renewed_at + self._config.duration * 2 / 3 - self._clock()

    @property
    def created(self) -> str:
        """When the API server created the Lease that this replica holds, as it wrote it."""
        return get_str(self._record or {}, "metadata", "creationTimestamp")

    def standby(self) -> bool:
        """Return whether another replica held the Lease when the API server was last asked."""
        return self._other_holder is not None and not self._failing

    async def acquire(self) -> None:
        """Wait until this replica holds the Lease."""
        waiting = False
        while not await self._try():
            if not waiting:
                logs.event("waiting_for_lease", lease=self._config.name)
                waiting = True
            await self._sleep(self._config.duration / 15)
        logs.event("lease_acquired", lease=self._config.name, identity=self._config.identity)

    async def hold(self) -> None:
        """Renew the Lease until cancelled. Raises LeaseLost."""
        while True:
            await self._sleep(min(self._config.duration / 5, max(self.remaining(), 0.0)))
            taken = not self.held() or (not await self._try() and self._other_holder is not None)
            if self._restored:
                self._end_term("the API server was restored from a backup: its resource versions are older than before")
            if taken or not self.held():
                self._end_term(f"the lease {self._config.name} could not be renewed")

    def _end_term(self, reason: str) -> None:
        self._renewed_at = None
        raise LeaseLost(reason)

    async def release(self) -> None:
        """Give the Lease up, so that another replica can acquire it at once."""
        if self._renewed_at is None:
            return
        self._renewed_at = None
        try:
            current = await self._kube.get(self._path)
            if get_str(current, "spec", "holderIdentity") == self._config.identity:
                await self._kube.replace(self._path, self._body(current, holder=""))
        except KubeError as error:
            logs.event("lease_release_failed", level=logging.WARNING, error=str(error))

    @property
    def _path(self) -> str:
        return api_paths.leases(self._config.namespace, self._config.name)

    async def _try(self) -> bool:
        """Acquire or renew the Lease; return whether that succeeded."""
        started = self._clock()
        limit = self._config.duration / 3
        try:
            async with asyncio.timeout(min(limit, self.remaining()) if self.held() else limit):
                acquired = await self._acquire_or_renew()
        except (KubeError, TimeoutError) as error:
            if not self._failing:
                logs.event("lease_write_failed", level=logging.WARNING, error=str(error) or "no answer in time")
            self._failing = True
            return False
        self._failing = False
        if acquired:
            self._renewed_at = started
            self._other_holder = None
        return acquired

    async def _acquire_or_renew(self) -> bool:
        if self._record is not None and await self._write(self._record):
            return True
        self._record = None
        try:
            current = await self._kube.get(self._path)
        except NotFound:
            try:
                self._remember(await self._kube.create(api_paths.leases(self._config.namespace), self._body({})))
            except Conflict:
                return False
            except NotFound as error:
                wanted = f"create the namespace {self._config.namespace}, or set CORRAL_LEASE_NAMESPACE"
                raise LeaseNamespaceMissing(f"the Lease for leader election cannot be created: {wanted}") from error
            return True
        return self._free(current) and await self._write(current)

    async def _write(self, current: JsonObject) -> bool:
        """Write this replica as the holder, unless the Lease has changed since ``current``."""
        try:
            self._remember(await self._kube.replace(self._path, self._body(current)))
        except (Conflict, NotFound):
            return False
        return True

    def _remember(self, written: JsonObject) -> None:
        version = get_str(written, "metadata", "resourceVersion")
        self._restored |= is_older(version, self._version)
        self._record, self._version = written, version

    def _free(self, current: JsonObject) -> bool:
        holder = get_str(current, "spec", "holderIdentity")
        if holder in ("", self._config.identity):
            return True
        version = get_str(current, "metadata", "resourceVersion")
        if self._other_holder is None or self._other_holder[0] != version:
            self._other_holder = (version, self._clock())
        return self._clock() > self._other_holder[1] + self._duration(current)

    def _duration(self, current: JsonObject) -> float:
        seconds = get_object(current, "spec").get("leaseDurationSeconds")
        return float(seconds) if isinstance(seconds, int) else self._config.duration

    def _body(self, current: JsonObject, holder: str | None = None) -> JsonObject:
        old = get_object(current, "spec")
        holder = self._config.identity if holder is None else holder
        same = get_str(old, "holderIdentity") == holder
        now = format_micro_time(time.time())
        transitions = old.get("leaseTransitions")
        count = transitions if isinstance(transitions, int) else 0
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._config.name,
                "namespace": self._config.namespace,
                **({"resourceVersion": get_str(current, "metadata", "resourceVersion")} if current else {}),
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(self._config.duration)),
                "acquireTime": get_str(old, "acquireTime") if same and get_str(old, "acquireTime") else now,
                "renewTime": now,
                "leaseTransitions": count if same or not current else count + 1,
            },
        }
