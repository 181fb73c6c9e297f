"""Writer of demand: this gateway's pending requests in ``status.demand`` of each Model, which the operator reads.

- Written immediately for the first pending request, renewed while there are any, withdrawn after the last one. The same
  holds for clients that wait for a pull: without pending requests, the entry has the number 0.
- One task for each Model with demand, so that the last write contains the last level.
- Failed writes are retried. An entry that cannot be withdrawn expires, because it is not renewed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.demand import RENEW_INTERVAL, DemandEntry, field_manager
from corral_core.model.model import API_VERSION, GROUP, KIND, PLURAL, VERSION
from corral_kube.errors import KubeError, NotFound
from corral_server.gateway import log

_MIN_BACKOFF, _MAX_BACKOFF = 0.1, 2.0
CLOSE_TIMEOUT = 2.0
"""Seconds to withdraw all demand on shutdown."""


class StatusApplier(Protocol):
    """The required part of ``corral_kube.client.KubeClient``."""

    async def apply(self, path: str, body: JsonObject, *, manager: str) -> JsonObject: ...


@dataclass
class _Level:
    pending: int = 0
    oldest: float | None = None
    pull: bool = False
    context_length: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def wanted(self) -> bool:
        return self.pull or self.pending > 0


class DemandWriter:
    """All methods are called on one event loop; ``set_level`` and ``set_pull`` do not block."""

    def __init__(self, target: StatusApplier, gateway: str) -> None:
        self._target = target
        self._gateway = gateway
        self._levels: dict[str, _Level] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def set_level(self, key: str, pending: int, oldest: float | None) -> None:
        level = self._levels.get(key) or _Level()
        level.pending, level.oldest = pending, oldest
        self._changed(key, level)

    def set_context(self, key: str, length: int) -> None:
        """Set the longest context that pending requests ask for, 0 without any."""
        level = self._levels.get(key)
        if level is not None:
            level.context_length = length
            level.changed.set()

    def set_pull(self, key: str, wanted: bool) -> None:
        """Set whether clients wait for the pull of the Model's source."""
        level = self._levels.get(key) or _Level()
        level.pull = wanted
        self._changed(key, level)

    def _changed(self, key: str, level: _Level) -> None:
        level.changed.set()
        if level.wanted and key not in self._levels:
            self._levels[key] = level
            self._tasks[key] = asyncio.create_task(self._write_until_withdrawn(key, level), name=f"demand of {key}")

    async def close(self) -> None:
        """Withdraw all demand, for at most ``CLOSE_TIMEOUT`` seconds."""
        for level in self._levels.values():
            level.pending, level.pull = 0, False
            level.changed.set()
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _write_until_withdrawn(self, key: str, level: _Level) -> None:
        """Write the level at every change and renewal until it is withdrawn."""
        try:
            pause = _MIN_BACKOFF
            while True:
                level.changed.clear()
                wanted = level.wanted
                try:
                    await self._write(key, level)
                except NotFound:
                    wanted = False
                except KubeError as error:
                    if pause == _MIN_BACKOFF:
                        log.event("demand_write_failed", model=key, error=str(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _MAX_BACKOFF)
                    continue
                pause = _MIN_BACKOFF
                if not wanted and not (level.changed.is_set() and level.wanted):
                    return
                await _wait_until(level.changed, RENEW_INTERVAL)
        finally:
            del self._levels[key]
            del self._tasks[key]

    async def _write(self, key: str, level: _Level) -> None:
        namespace, _, name = key.partition("/")
        now = time.time()
        oldest = now if level.oldest is None else level.oldest
        entry = DemandEntry(
            self._gateway, level.pending, oldest=oldest, renewed=now, context_length=level.context_length
        )
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace},
            "status": {"demand": [entry.to_json()]} if level.wanted else {},
        }
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status"
        await self._target.apply(path, body, manager=field_manager(self._gateway))


async def _wait_until(changed: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most for ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        pass
