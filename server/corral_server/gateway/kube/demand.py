"""Tells the operator, through ``status.demand``, for which Models requests wait here.

Written at once when the first request waits, renewed while any does, withdrawn when the last one leaves: by one task
for each such Model, so that what is written last is what was said last. When the API server does not answer, it is
tried again; an entry that cannot be withdrawn stops counting by itself, since nobody renews it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from corral_core.demand import RENEW_EVERY, DemandEntry, field_manager
from corral_core.jsonfields import Json
from corral_core.model import API_VERSION, GROUP, KIND, PLURAL, VERSION
from corral_kube.errors import KubeError, NotFound
from corral_server.gateway import log

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
LAST_WORDS = 2.0
"""Seconds in which everything is withdrawn at the end."""


class Target(Protocol):
    """What is needed of the API server; ``corral_kube.client.Kube``."""

    async def apply(self, path: str, body: Json, *, manager: str) -> Json: ...


@dataclass
class _Level:
    waiting: int
    oldest: float | None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Demands:
    """All methods are called on one event loop; ``state`` never blocks."""

    def __init__(self, target: Target, gateway: str) -> None:
        self._target = target
        self._gateway = gateway
        self._levels: dict[str, _Level] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def state(self, key: str, waiting: int, oldest: float | None) -> None:
        level = self._levels.get(key)
        if level is not None:
            level.waiting, level.oldest = waiting, oldest
            level.changed.set()
        elif waiting > 0:
            self._levels[key] = _Level(waiting, oldest)
            self._tasks[key] = asyncio.create_task(self._keep(key, self._levels[key]), name=f"demand of {key}")

    async def close(self) -> None:
        """Withdraws everything, as far as it goes quickly."""
        for level in self._levels.values():
            level.waiting = 0
            level.changed.set()
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, key: str, level: _Level) -> None:
        """Writes the level whenever it changed or is to be renewed, until nobody waits any more."""
        try:
            pause = _FIRST_PAUSE
            while True:
                level.changed.clear()
                waiting = level.waiting
                try:
                    await self._write(key, waiting, level.oldest)
                except NotFound:
                    waiting = 0
                except KubeError as error:
                    if pause == _FIRST_PAUSE:
                        log.event("demand_not_written", model=key, error=str(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    continue
                pause = _FIRST_PAUSE
                if waiting == 0 and not (level.changed.is_set() and level.waiting):
                    return
                await _either(level.changed, RENEW_EVERY)
        finally:
            del self._levels[key]
            del self._tasks[key]

    async def _write(self, key: str, waiting: int, oldest: float | None) -> None:
        namespace, _, name = key.partition("/")
        now = time.time()
        entry = DemandEntry(self._gateway, waiting, oldest=now if oldest is None else oldest, renewed=now)
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace},
            "status": {"demand": [entry.to_json()]} if waiting else {},
        }
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status"
        await self._target.apply(path, body, manager=field_manager(self._gateway))


async def _either(changed: asyncio.Event, seconds: float) -> None:
    """Until the event, or for so long."""
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        pass
