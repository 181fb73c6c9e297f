"""Process supervisor of local mode: keeps as many runners as planned, as Deployment and kubelet do in a cluster.

Invariants:

- The supervisor only does what the last ``scale`` call said; it decides nothing about Models.
- A runner that exits by itself restarts after a pause that doubles with each failed start. After ``max_failures``
  failed starts in a row the Model has a ``failure`` until the pause is over, so that pending requests get an error.
- When the served spec of a Model changes, the new runner starts first. The old one takes requests until the new one is
  ready, then finishes them and exits. It keeps serving if the new one never gets ready.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType, TracebackType

from corral_core.model.model import Model
from corral_core.planning.snapshot import Replica
from corral_server.gateway.directory.directory import Endpoint
from corral_server.local.config import RunnerProcessConfig
from corral_server.local.event_log import EventLog
from corral_server.local.runners.process import Exit, RunnerProcess, display_name


@dataclass
class _RunnerGroup:
    """The runners of one Model. ``retry_at`` is in the event loop's time."""

    model: Model
    digest: str
    desired_replicas: int = 0
    processes: list[RunnerProcess] = field(default_factory=list)
    failures: int = 0
    message: str = ""
    retry_at: float = 0.0
    timer: asyncio.TimerHandle | None = None
    removed: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> list[RunnerProcess]:
        return [process for process in self.processes if not process.terminating]


class Supervisor:
    """Use as ``async with Supervisor(...)``: at the end of the block all runners get SIGTERM and are waited for.

    After an error in the block they are killed. ``changed(key)`` is called after every change of what the other methods
    return for that key.
    """

    def __init__(self, config: RunnerProcessConfig, log: EventLog, changed: Callable[[str], None]) -> None:
        self._config = config
        self._log = log
        self._changed = changed
        self._groups: dict[str, _RunnerGroup] = {}
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
        for group in self._groups.values():
            self._set_timer(group, None)
            for process in group.live:
                process.terminate()
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
        """Set the number of runners of the Model and the digest that they serve.

        New runners get ``settings`` in their environment.
        """
        group = self._groups.get(model.key)
        if group is None:
            if replicas == 0:
                return
            group = self._groups[model.key] = _RunnerGroup(model, digest)
        if group.digest != digest:
            group.failures, group.retry_at = 0, 0.0
            self._set_timer(group, None)
        group.model, group.digest, group.desired_replicas, group.removed = model, digest, replicas, False
        group.settings = settings
        self._reconcile(group)

    def remove(self, key: str) -> None:
        """End the runners of a removed Model and forget it."""
        group = self._groups.get(key)
        if group is not None:
            group.desired_replicas, group.removed = 0, True
            self._reconcile(group)
            self._forget(group)

    def interrupt(self, key: str) -> None:
        """Kill the Model's terminating runners soon: they had their time."""
        group = self._groups.get(key)
        for process in group.processes if group else ():
            process.interrupt()

    def kill(self) -> None:
        """Kill all runners."""
        for group in self._groups.values():
            for process in group.processes:
                process.kill()

    def models(self) -> list[Model]:
        """Return the Models that have runners, terminating ones included."""
        return [group.model for group in self._groups.values() if group.processes]

    def pids(self) -> list[int]:
        """Return the process ids of all runners that have not ended."""
        pids = [process.pid for group in self._groups.values() for process in group.processes]
        return [pid for pid in pids if pid is not None]

    def desired_replicas(self, key: str) -> int:
        group = self._groups.get(key)
        return group.desired_replicas if group else 0

    def replicas(self, key: str) -> tuple[Replica, ...]:
        group = self._groups.get(key)
        return tuple(process.replica for process in group.processes) if group else ()

    def endpoints(self, key: str) -> tuple[Endpoint, ...]:
        """Return the endpoints for requests: runners of the current spec, or of the last one until those are ready."""
        return tuple(endpoint for _, endpoint in self._serving(key))

    def context_length(self, key: str) -> int:
        """Return the context length that each of the runners for requests has, 0 without one."""
        statuses = [process.replica.status for process, _ in self._serving(key)]
        return min((status.context_length for status in statuses if status is not None), default=0)

    def _serving(self, key: str) -> list[tuple[RunnerProcess, Endpoint]]:
        group = self._groups.get(key)
        ready = [(process, endpoint) for process in group.processes if (endpoint := process.endpoint)] if group else []
        return [each for each in ready if group and each[0].digest == group.digest] or ready

    def failure(self, key: str) -> str | None:
        """Return why the Model cannot be started at present; None if it can."""
        group = self._groups.get(key)
        if group is None or group.failures < self._config.max_failures or self.endpoints(key):
            return None
        if self._loop.time() >= group.retry_at:
            return None
        return f"the model could not be loaded, {group.failures} attempts in a row failed: {group.message}"

    def _reconcile(self, group: _RunnerGroup) -> None:
        if self._closing:
            return
        self._end_failed(group)
        fresh = [process for process in group.live if process.digest == group.digest]
        stale = [process for process in group.live if process.digest != group.digest]
        leave = fresh[group.desired_replicas :] + self._replaced(group, fresh, stale)
        for process in leave:
            process.terminate()
        missing = group.desired_replicas - len(fresh) if self._loop.time() >= group.retry_at else 0
        for _ in range(missing):
            self._start(group)
        if leave or missing > 0:
            self._changed(group.model.key)

    def _end_failed(self, group: _RunnerGroup) -> None:
        """End the runners whose GPU has failed: its memory may be wrong, and a new process loads the model again."""
        for process in group.live:
            if process.device_failure:
                self._log.problem(
                    "device_failed", display_name(group.model), replica=process.name, reason=process.device_failure
                )
                process.terminate()

    def _forget(self, group: _RunnerGroup) -> None:
        if group.removed and not group.processes:
            self._set_timer(group, None)
            self._groups.pop(group.model.key, None)

    def _replaced(
        self, group: _RunnerGroup, fresh: list[RunnerProcess], stale: list[RunnerProcess]
    ) -> list[RunnerProcess]:
        """Return the runners of an earlier spec that are no longer needed."""
        ready = sum(1 for process in fresh if process.ready_since is not None)
        if ready >= group.desired_replicas:
            return stale
        return [process for process in stale if process.ready_since is None]

    def _start(self, group: _RunnerGroup) -> None:
        key, environment = group.model.key, {**self._config.environment, **group.settings}
        process = RunnerProcess(
            f"{group.model.name}-{next(self._numbers)}",
            group.model,
            group.digest,
            config=replace(self._config, environment=environment),
            parent_fd=self._parent_read,
            log=self._log,
            changed=lambda: self._process_changed(key),
        )
        group.processes.append(process)
        self._group.create_task(self._run_process(group, process), name=f"runner {process.name}")

    async def _run_process(self, group: _RunnerGroup, process: RunnerProcess) -> None:
        try:
            ended = await process.run()
        finally:
            group.processes.remove(process)
        self._record_exit(group, process, ended)
        self._reconcile(group)
        self._forget(group)
        self._changed(group.model.key)

    def _process_changed(self, key: str) -> None:
        self._reconcile(self._groups[key])
        self._changed(key)

    def _record_exit(self, group: _RunnerGroup, process: RunnerProcess, ended: Exit) -> None:
        """Record the exit of a runner, and the pause before the next start if the exit was not requested."""
        name, requested = display_name(group.model), process.terminating
        detail: dict[str, object] = {"replica": process.name, "status": ended.status}
        if requested:
            self._log.event("exited", name, **detail)
            return
        if process.digest == group.digest:
            group.failures = 0 if process.ready_since is not None else group.failures + 1
            group.message = ended.message
            pause = min(self._config.max_backoff, self._config.initial_backoff * 2.0 ** max(0, group.failures - 1))
            self._set_timer(group, pause)
            detail["retry_s"] = pause
        detail |= {"failures": group.failures, "reason": ended.message, "stderr": process.last_errors}
        self._log.problem("exited", name, **detail)

    def _set_timer(self, group: _RunnerGroup, pause: float | None) -> None:
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        if pause is not None:
            group.retry_at = self._loop.time() + pause
            group.timer = self._loop.call_at(group.retry_at, self._retry, group)

    def _retry(self, group: _RunnerGroup) -> None:
        group.timer = None
        group.retry_at = 0.0
        self._reconcile(group)
        self._changed(group.model.key)
