"""One runner as a child process: start, runner status, termination and the reason of its exit.

Invariants:

- The child cannot outlive this process, however it ends: the child inherits the read end of a pipe whose only write end
  is here, and exits when that end closes.
- ``run`` does not return before the child has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from corral_core.base.clock import steady_time
from corral_core.contracts.model_identity import model_identity
from corral_core.contracts.model_variable import model_variables
from corral_core.contracts.runner_status import RunnerStatus
from corral_core.model.model import Model
from corral_core.model.resource import runner_model
from corral_core.planning.load_progress import LoadProgress
from corral_core.planning.snapshot import Replica
from corral_server.gateway.directory.directory import Endpoint
from corral_server.local.config import RunnerProcessConfig
from corral_server.local.event_log import EventLog
from corral_server.local.runners.status import follow_runner_status
from corral_server.system.lines import lines

_LAST_LINES = 20
_OUTPUT_TIMEOUT = 2.0
"""Seconds to read the remaining output of an ended child; a process that it started may hold the pipe open."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a runner ended. ``status`` is negative for a signal; ``message`` is the reason in words."""

    status: int
    message: str


class RunnerProcess:
    """One runner. Its owner awaits ``run`` and cancels it to kill the child; ``changed`` is called on every change."""

    def __init__(
        self,
        name: str,
        model: Model,
        digest: str,
        *,
        config: RunnerProcessConfig,
        parent_fd: int,
        log: EventLog,
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.model = model
        self.digest = digest
        self.terminating = False
        self.ready_since: float | None = None
        self._identity = model_identity(model.key, model.uid)
        self._config = config
        self._parent_fd = parent_fd
        self._log = log
        self._changed = changed
        self._started_at = steady_time()
        self._port = 0
        self._slots = 1
        self._status: RunnerStatus | None = None
        self._process: Process | None = None
        self._killer: asyncio.TimerHandle | None = None
        self._progress = LoadProgress(self._started_at)
        self._last_seen = time.monotonic()
        self._killed = self._interrupted = False
        self._kill_reason = ""
        self._errors: deque[str] = deque(maxlen=_LAST_LINES)

    @property
    def replica(self) -> Replica:
        return Replica(
            self.name,
            self.ready_since is not None,
            self.terminating,
            self._started_at,
            self._status,
            self.ready_since,
            progress_at=self._progress.progress_at,
        )

    @property
    def pid(self) -> int | None:
        """The process id; None before the start and if the start failed."""
        return self._process.pid if self._process is not None else None

    @property
    def device_failure(self) -> str:
        """Which GPU has failed and why, as the runner reports it; "" if none has."""
        return self._status.device_failure if self._status is not None else ""

    @property
    def endpoint(self) -> Endpoint | None:
        """The address for requests; None while the runner loads or drains."""
        draining = self.terminating or (self._status is not None and self._status.draining)
        if self.ready_since is None or draining:
            return None
        return Endpoint(self.name, "127.0.0.1", self._port, self._slots, self._identity)

    def terminate(self) -> None:
        """Send SIGTERM: the runner finishes its requests and exits. SIGKILL follows after the drain timeout."""
        if self.terminating:
            return
        self.terminating = True
        if self._process is not None:
            self._send_sigterm()

    def interrupt(self) -> None:
        """Send SIGKILL to a terminating runner after ``kill_grace``, in which the gateway ends its streams."""
        if self.terminating and not self._interrupted:
            self._interrupted = True
            self._kill_after(self._config.kill_grace)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.terminating = self._killed = True
        self._signal(signal.SIGKILL)

    async def run(self) -> Exit:
        """Start the process and wait for its end. The status is 127 if it cannot be started."""
        with contextlib.closing(_listen()) as listener, _pipe() as (reader, writer):
            self._port = listener.getsockname()[1]
            try:
                self._process = process = await self._spawn(listener, writer)
            except OSError as error:
                return Exit(127, f"the runner process cannot be started: {self._config.command[0]}: {error}")
            writer.close()
            listener.close()  # the child holds its own copy: after its death, connections are refused
            self._log.event("started", self._display_name, replica=self.name, pid=process.pid, port=self._port)
            if self._killed:
                self._signal(signal.SIGKILL)
            elif self.terminating:
                self._send_sigterm()
            status = await self._supervise(process)
            return Exit(status, self._exit_reason(status, _read_available(reader)))

    @property
    def _display_name(self) -> str:
        return display_name(self.model)

    async def _spawn(self, listener: socket.socket, writer: BinaryIO) -> Process:
        """Start the child in its own session: Ctrl-C at the terminal does not reach it, so its requests can end."""
        model = runner_model(self.model)
        environment = dict(self._config.environment) | {
            **model_variables(json.dumps(model)),
            "CORRAL_LISTEN_FD": str(listener.fileno()),
            "CORRAL_PARENT_FD": str(self._parent_fd),
            "CORRAL_TERMINATION_LOG": f"/dev/fd/{writer.fileno()}",
            "CORRAL_DRAIN_TIMEOUT": f"{self._config.drain_timeout:g}s",
            "CORRAL_PVC_ROOT": str(self._config.pvc_root),
        }
        return await asyncio.create_subprocess_exec(
            *self._config.command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            pass_fds=(listener.fileno(), self._parent_fd, writer.fileno()),
            start_new_session=True,
        )

    async def _supervise(self, process: Process) -> int:
        """Relay the child's output and follow its runner status until it ends; kill it on cancellation."""
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.TaskGroup() as group:
            output = [
                group.create_task(self._relay(process.stdout)),
                group.create_task(self._keep_stderr(process.stderr)),
            ]
            watchers = [
                group.create_task(follow_runner_status(self._port, self._identity, self._on_status)),
                group.create_task(self._watchdog()),
            ]
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                self.kill()
                await process.wait()
                raise
            finally:
                for task in watchers:
                    task.cancel()
                if self._killer is not None:
                    self._killer.cancel()
            _, late = await asyncio.wait(output, timeout=_OUTPUT_TIMEOUT)
            for task in late:
                task.cancel()
        return status

    async def _relay(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            self._log.relay(self._display_name, line)

    async def _keep_stderr(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            self._errors.append(line)
            self._log.debug("output", self._display_name, text=line)

    def _on_status(self, status: RunnerStatus | None) -> None:
        progress_at = self._progress.progress_at
        self._progress.observe_status(status, steady_time())
        if self._progress.progress_at != progress_at or (status is not None and status.loaded):
            self._last_seen = time.monotonic()
        before, self._status = self._status, status
        if _decision_state(status) == _decision_state(before):
            return
        if status is not None and status.loaded:
            self._slots = max(1, status.slots)
            if self.ready_since is None:
                self.ready_since = steady_time()
                seconds = round(self.ready_since - self._started_at, 4)
                self._log.event("ready", self._display_name, replica=self.name, slots=self._slots, seconds=seconds)
        self._changed()

    async def _watchdog(self) -> None:
        """Kill a runner that makes no progress; it then counts as crashed."""
        while True:
            loading = self.ready_since is None
            limit = self._config.load_timeout if loading else self._config.silence_timeout
            left = self._last_seen + limit - time.monotonic()
            if left <= 0:
                what = "no load progress" if loading else "no runner status"
                self._kill_reason = f"timed out: {what} for {limit:g} s"
                self._signal(signal.SIGKILL)
                return
            await asyncio.sleep(min(left, self._config.silence_timeout / 4))

    def _send_sigterm(self) -> None:
        self._log.event("stopping", self._display_name, replica=self.name)
        self._signal(signal.SIGTERM)
        self._kill_after(self._config.drain_timeout + self._config.kill_grace)

    def _kill_after(self, seconds: float) -> None:
        if self._killer is not None:
            self._killer.cancel()
        self._killer = asyncio.get_running_loop().call_later(seconds, self._signal, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _exit_reason(self, status: int, message: str) -> str:
        """Return why the child ended: its termination message, else what is known from outside."""
        last = self._errors[-1] if self._errors else ""
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return message or self._kill_reason or (f"{last} ({how})" if last else f"the runner ended: {how}")

    @property
    def last_errors(self) -> list[str]:
        """The last lines of standard error."""
        return list(self._errors)


def _decision_state(status: RunnerStatus | None) -> object:
    """Return the part of a runner status that can change the plan; under steady load the request count does not."""
    if status is None:
        return None
    clock = status.keep_alive, status.expires_at, status.last_end if not status.busy else None
    return status.loaded, status.draining, status.busy, status.slots, clock


def display_name(model: Model) -> str:
    """Return the Model's name in logs: without the namespace if that is the default one."""
    return model.name if model.namespace == "default" else model.key


def _listen() -> socket.socket:
    """Return a listening socket for the child to inherit, so that its port is known and bound before it runs."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open the pipe for the child's termination message: it is written like a file and leaves none behind."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        yield reader, writer


def _read_available(reader: BinaryIO) -> str:
    """Return the first 4 KiB that were written, without waiting."""
    os.set_blocking(reader.fileno(), False)
    return (reader.read(4096) or b"").decode(errors="replace").strip()
