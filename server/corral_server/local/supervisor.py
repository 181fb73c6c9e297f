"""The actor of local mode: makes runners be as many as was decided, as kubelet and Deployment do in a cluster.

What always holds:
- It only does what ``scale`` said last; it decides nothing about Models.
- A runner that ends by itself is started again after a pause that doubles with each failed start. After ``tries``
  failed starts in a row the Model has a ``failure`` until the pause is over, so that nobody waits for it in vain.
- When what a Model serves changes, its new runner starts first; the old one takes requests until the new one is ready,
  and then ends those it has. A new one that never gets ready leaves the old one serving.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType, TracebackType

from corral_core.model import Model
from corral_core.snapshot import Replica
from corral_server.gateway.directory import Endpoint
from corral_server.local.child import Child, Exit, label
from corral_server.local.config import RunnerConfig
from corral_server.local.logs import EventLog


@dataclass
class _Crew:
    """One Model's runners. ``retry_at`` is in the event loop's time."""

    model: Model
    digest: str
    wanted: int = 0
    children: list[Child] = field(default_factory=list)
    failures: int = 0
    message: str = ""
    retry_at: float = 0.0
    timer: asyncio.TimerHandle | None = None
    removed: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> list[Child]:
        return [child for child in self.children if not child.terminating]


class Supervisor:
    """``async with Supervisor(...)``: at the end of the block all runners are asked to end and waited for.

    After an error in the block they are killed.

    ``changed(key)`` is called after every change of what the other methods answer for that key.
    """

    def __init__(self, config: RunnerConfig, log: EventLog, changed: Callable[[str], None]) -> None:
        self._config = config
        self._log = log
        self._changed = changed
        self._crews: dict[str, _Crew] = {}
        self._numbers = itertools.count(1)
        self._closing = False
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Supervisor:
        self._loop = asyncio.get_running_loop()
        self._parent_read, self._parent_write = os.pipe()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for crew in self._crews.values():
            self._set_timer(crew, None)
            for child in crew.live:
                child.terminate()
        if kind is not None:
            self.kill()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            os.close(self._parent_read)
            os.close(self._parent_write)

    def scale(
        self, model: Model, digest: str, replicas: int, *, settings: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """From now on the Model has this many runners that serve ``digest``.

        Those that are started are told these ``settings`` too, in their environment.
        """
        crew = self._crews.get(model.key)
        if crew is None:
            if replicas == 0:
                return
            crew = self._crews[model.key] = _Crew(model, digest)
        if crew.digest != digest:
            crew.failures, crew.retry_at = 0, 0.0
            self._set_timer(crew, None)
        crew.model, crew.digest, crew.wanted, crew.removed = model, digest, replicas, False
        crew.settings = settings
        self._reconcile(crew)

    def remove(self, key: str) -> None:
        """The Model is gone: its runners end, and nothing of it is remembered."""
        crew = self._crews.get(key)
        if crew is not None:
            crew.wanted, crew.removed = 0, True
            self._reconcile(crew)
            self._forget(crew)

    def kill(self) -> None:
        """Ends all runners at once."""
        for crew in self._crews.values():
            for child in crew.children:
                child.kill()

    def models(self) -> list[Model]:
        """The Models that have runners, those included that are told to end."""
        return [crew.model for crew in self._crews.values() if crew.children]

    def processes(self) -> list[int]:
        """All runners that have not ended."""
        pids = [child.pid for crew in self._crews.values() for child in crew.children]
        return [pid for pid in pids if pid is not None]

    def wanted(self, key: str) -> int:
        crew = self._crews.get(key)
        return crew.wanted if crew else 0

    def replicas(self, key: str) -> tuple[Replica, ...]:
        crew = self._crews.get(key)
        return tuple(child.replica for child in crew.children) if crew else ()

    def endpoints(self, key: str) -> tuple[Endpoint, ...]:
        """Where requests go: the runners of the present spec, or those of the last one until they are ready."""
        crew = self._crews.get(key)
        ready = [(child, endpoint) for child in crew.children if (endpoint := child.endpoint)] if crew else []
        fresh = [endpoint for child, endpoint in ready if crew and child.digest == crew.digest]
        return tuple(fresh or [endpoint for _, endpoint in ready])

    def failure(self, key: str) -> str | None:
        """Why the Model cannot be started at present."""
        crew = self._crews.get(key)
        if crew is None or crew.failures < self._config.tries or self.endpoints(key):
            return None
        if self._loop.time() >= crew.retry_at:
            return None
        return f"the model could not be loaded, {crew.failures} tries in a row failed: {crew.message}"

    def _reconcile(self, crew: _Crew) -> None:
        if self._closing:
            return
        fresh = [child for child in crew.live if child.digest == crew.digest]
        stale = [child for child in crew.live if child.digest != crew.digest]
        leave = fresh[crew.wanted :] + self._replaced(crew, fresh, stale)
        for child in leave:
            child.terminate()
        missing = crew.wanted - len(fresh) if self._loop.time() >= crew.retry_at else 0
        for _ in range(missing):
            self._start(crew)
        if leave or missing > 0:
            self._changed(crew.model.key)

    def _forget(self, crew: _Crew) -> None:
        if crew.removed and not crew.children:
            self._set_timer(crew, None)
            self._crews.pop(crew.model.key, None)

    def _replaced(self, crew: _Crew, fresh: list[Child], stale: list[Child]) -> list[Child]:
        """The runners of an earlier spec that are needed no more."""
        ready = sum(1 for child in fresh if child.ready_since is not None)
        if ready >= crew.wanted:
            return stale
        return [child for child in stale if child.ready_since is None]

    def _start(self, crew: _Crew) -> None:
        key, environment = crew.model.key, {**self._config.environment, **crew.settings}
        child = Child(
            f"{crew.model.name}-{next(self._numbers)}",
            crew.model,
            crew.digest,
            config=replace(self._config, environment=environment),
            parent_fd=self._parent_read,
            log=self._log,
            changed=lambda: self._child_changed(key),
        )
        crew.children.append(child)
        self._group.create_task(self._own(crew, child), name=f"runner {child.name}")

    async def _own(self, crew: _Crew, child: Child) -> None:
        try:
            ended = await child.run()
        finally:
            crew.children.remove(child)
        self._account(crew, child, ended)
        self._reconcile(crew)
        self._forget(crew)
        self._changed(crew.model.key)

    def _child_changed(self, key: str) -> None:
        self._reconcile(self._crews[key])
        self._changed(key)

    def _account(self, crew: _Crew, child: Child, ended: Exit) -> None:
        """Notes the end of a runner, and the pause before the next start if nobody told it to end."""
        name, asked = label(crew.model), child.terminating
        detail: dict[str, object] = {"replica": child.name, "status": ended.status}
        if asked:
            self._log.event("exited", name, **detail)
            return
        if child.digest == crew.digest:
            crew.failures = 0 if child.ready_since is not None else crew.failures + 1
            crew.message = ended.message
            pause = min(self._config.longest_backoff, self._config.first_backoff * 2.0 ** max(0, crew.failures - 1))
            self._set_timer(crew, pause)
            detail["retry_s"] = pause
        detail |= {"failures": crew.failures, "reason": ended.message, "stderr": child.last_errors}
        self._log.problem("exited", name, **detail)

    def _set_timer(self, crew: _Crew, pause: float | None) -> None:
        if crew.timer is not None:
            crew.timer.cancel()
            crew.timer = None
        if pause is not None:
            crew.retry_at = self._loop.time() + pause
            crew.timer = self._loop.call_at(crew.retry_at, self._paused_enough, crew)

    def _paused_enough(self, crew: _Crew) -> None:
        crew.timer = None
        crew.retry_at = 0.0
        self._reconcile(crew)
        self._changed(crew.model.key)
