"""One runner as a child process: started, followed, told to end, and its end explained.

What always holds: the child cannot outlive this process, whatever ends it, because it inherits the read end of a pipe
whose only write end is here and ends when that closes; and ``run`` does not return before the child is gone.
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

from corral_core.activity import Activity
from corral_core.model import Model
from corral_core.resource import serving_spec
from corral_core.snapshot import Replica
from corral_server.gateway.directory import Endpoint
from corral_server.local.activity import follow
from corral_server.local.config import RunnerConfig
from corral_server.local.lines import lines
from corral_server.local.logs import EventLog

_LAST_LINES = 20
_OUTPUT_TIMEOUT = 2.0
"""Seconds that the rest of the output of an ended child may take; something it started may hold the pipe open."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a runner ended. ``status`` is negative for a signal; ``message`` says why, in words."""

    status: int
    message: str


class Child:
    """``run`` is to be awaited by its owner, and cancelled to kill it. ``changed`` is called at every change."""

    def __init__(
        self,
        name: str,
        model: Model,
        digest: str,
        *,
        config: RunnerConfig,
        parent_fd: int,
        log: EventLog,
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.model = model
        self.digest = digest
        self.terminating = False
        self.ready_since: float | None = None
        self._config = config
        self._parent_fd = parent_fd
        self._log = log
        self._changed = changed
        self._started_at = time.time()
        self._port = 0
        self._slots = 1
        self._activity: Activity | None = None
        self._process: Process | None = None
        self._killer: asyncio.TimerHandle | None = None
        self._last_sign = time.monotonic()
        self._killed = False
        self._killed_for = ""
        self._errors: deque[str] = deque(maxlen=_LAST_LINES)

    @property
    def replica(self) -> Replica:
        ready = self.ready_since is not None
        return Replica(self.name, ready, self.terminating, self._started_at, self._activity, self.ready_since)

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return self._process.pid if self._process is not None else None

    @property
    def endpoint(self) -> Endpoint | None:
        """Where requests may be sent; None while it loads or drains."""
        draining = self.terminating or (self._activity is not None and self._activity.draining)
        if self.ready_since is None or draining:
            return None
        return Endpoint(self.name, "127.0.0.1", self._port, self._slots)

    def terminate(self) -> None:
        """Asks the runner to end its requests and go; it is killed when it takes too long."""
        if self.terminating:
            return
        self.terminating = True
        if self._process is not None:
            self._ask_to_end()

    def kill(self) -> None:
        """Ends it at once."""
        self.terminating = self._killed = True
        self._signal(signal.SIGKILL)

    async def run(self) -> Exit:
        """From the start to the end of the process. A runner that cannot be started ended with status 127."""
        with contextlib.closing(_listen()) as listener, _pipe() as (reader, writer):
            self._port = listener.getsockname()[1]
            try:
                self._process = process = await self._spawn(listener, writer)
            except OSError as error:
                return Exit(127, f"the runner's process cannot be started: {self._config.command[0]}: {error}")
            writer.close()
            listener.close()  # the child's own copy remains: once it is dead, connecting is refused
            self._log.event("started", self._label, replica=self.name, pid=process.pid, port=self._port)
            if self._killed:
                self._signal(signal.SIGKILL)
            elif self.terminating:
                self._ask_to_end()
            status = await self._attend(process)
            return Exit(status, self._explain(status, _drained(reader)))

    @property
    def _label(self) -> str:
        return label(self.model)

    async def _spawn(self, listener: socket.socket, writer: BinaryIO) -> Process:
        """In a session of its own, so that Ctrl-C at the terminal reaches only us and requests can end."""
        model = {"name": self.model.name, "namespace": self.model.namespace, "spec": serving_spec(self.model)}
        environment = dict(self._config.environment) | {
            "CORRAL_MODEL": json.dumps(model),
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

    async def _attend(self, process: Process) -> int:
        """Relays what it writes and follows its activity until it ends; kills it when cancelled."""
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.TaskGroup() as group:
            output = [
                group.create_task(self._relay(process.stdout)),
                group.create_task(self._keep_errors(process.stderr)),
            ]
            watchers = [group.create_task(follow(self._port, self._heard)), group.create_task(self._watchdog())]
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
            self._log.relay(self._label, line)

    async def _keep_errors(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            self._errors.append(line)
            self._log.debug("output", self._label, text=line)

    def _heard(self, activity: Activity | None) -> None:
        if activity is not None and (activity.loaded or activity != self._activity):
            self._last_sign = time.monotonic()
        before, self._activity = self._activity, activity
        if _decides(activity) == _decides(before):
            return
        if activity is not None and activity.loaded:
            self._slots = max(1, activity.slots)
            if self.ready_since is None:
                self.ready_since = time.time()
                seconds = round(self.ready_since - self._started_at, 4)
                self._log.event("ready", self._label, replica=self.name, slots=self._slots, seconds=seconds)
        self._changed()

    async def _watchdog(self) -> None:
        """Kills a runner that no longer makes progress; it then counts as crashed."""
        while True:
            loading = self.ready_since is None
            limit = self._config.load_timeout if loading else self._config.silence_timeout
            left = self._last_sign + limit - time.monotonic()
            if left <= 0:
                what = "loading made no progress" if loading else "it was silent"
                self._killed_for = f"timed out: {what} for {limit:g} s"
                self._signal(signal.SIGKILL)
                return
            await asyncio.sleep(min(left, self._config.silence_timeout / 4))

    def _ask_to_end(self) -> None:
        self._log.event("stopping", self._label, replica=self.name)
        self._signal(signal.SIGTERM)
        patience = self._config.drain_timeout + self._config.kill_grace
        self._killer = asyncio.get_running_loop().call_later(patience, self._signal, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _explain(self, status: int, said: str) -> str:
        """Why it ended: its own last word, else what is known from outside."""
        last = self._errors[-1] if self._errors else ""
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return said or self._killed_for or (f"{last} ({how})" if last else f"the runner ended: {how}")

    @property
    def last_errors(self) -> list[str]:
        """The last lines of its standard error."""
        return list(self._errors)


def _decides(activity: Activity | None) -> object:
    """What of an activity can change a decision: under steady load the number of requests alone does not."""
    if activity is None:
        return None
    clock = activity.keep_alive, activity.expires_at, activity.last_end if not activity.busy else None
    return activity.loaded, activity.draining, activity.busy, activity.slots, clock


def label(model: Model) -> str:
    """How the logs name a Model: without the namespace that nobody wrote."""
    return model.name if model.namespace == "default" else model.key


def _listen() -> socket.socket:
    """A listening socket that the child inherits, so that its port is known and taken before it runs."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The way for the child's last word: a file for it to write that nobody has to remove."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        yield reader, writer


def _drained(reader: BinaryIO) -> str:
    """What was written, the first few KB; the writer is gone, or says nothing more."""
    os.set_blocking(reader.fileno(), False)
    return (reader.read(4096) or b"").decode(errors="replace").strip()
