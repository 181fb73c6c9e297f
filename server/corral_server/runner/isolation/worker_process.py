"""Worker process of a runner: untrusted input is processed where it can be stopped at any moment.

A thread cannot be stopped, and one operation of Python or of a library may hold the interpreter lock (GIL) or allocate
without end. The kernel limits the worker's memory and its CPU time for each request. CPU time, because a busy machine
must not make a usual request fail; the time that passes has a higher limit.

Invariants:
- One request at a time. A request that waits for its turn is within the time limits of those before it.
- Its memory counts in the budget of all requests (``memory.budget``) while it works, and is limited to what is spare.
- A worker that was stopped, failed or became large is replaced at the next request.
- Nothing that the worker sends is executed or unpickled.

Measured on two busy cores: 0.1 s until the first result, then 0.2 ms a request; 12 MiB until jinja2 or llguidance is
imported there, 25 to 30 MiB after it. A runner without such requests starts none.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import IO

from corral_server.runner.isolation.frames import (
    LAST_RESULT,
    MEMORY_BYTES,
    NO_MEMORY,
    READY,
    REQUEST,
    RESULT,
    Frame,
    read_frame,
    write_frame,
)
from corral_server.runner.memory.budget import current_reservation

START_TIMEOUT = 30.0
"""Seconds in which a worker has to be ready; a start takes a tenth of a second."""
_ELAPSED_TIMEOUT = 15.0
"""Seconds after which a request is ended whatever CPU time it has used."""
_MINIMUM_MEMORY = 48 * 1024 * 1024
"""Bytes in which templates and schemas within the other limits are processed; measured with the largest schemas."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
"""Variables that the worker gets; none of them is a setting or a secret."""


class WorkerFailed(Exception):
    """The worker gave no result.

    ├── WorkerTimeout      the time limit passed
    └── WorkerOutOfMemory  the memory limit was reached
    """


class WorkerTimeout(WorkerFailed):
    pass


class WorkerOutOfMemory(WorkerFailed):
    pass


class WorkerProcess:
    """Starts a worker at the first request. Safe from any thread; a call blocks until its result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, operation: str, arguments: Mapping[str, object], *, seconds: float) -> bytes:
        """Perform an operation (``worker.OPERATIONS``) and return its result.

        Raises WorkerFailed, and ApiError 413 or 503 without memory for it.
        ``arguments`` are JSON values. ``seconds`` limit the CPU time of the operation, without the start of a worker
        and its imports.
        """
        with self._lock, current_reservation().borrow(_MINIMUM_MEMORY, MEMORY_BYTES) as memory:
            request = {"operation": operation, "seconds": seconds, "memory": memory, "arguments": arguments}
            content = json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass")
            if len(content) > memory // 2:  # the worker has to parse it as well
                raise _out_of_memory(memory)
            process = self._running() or self._start()
            with _killed_after(process, _ELAPSED_TIMEOUT) as expired:
                frame = _exchange(process, content)
            ended = frame is None or frame.kind != RESULT or expired.is_set()
            code = self._end() if ended else None
        if frame is not None and frame.kind in (RESULT, LAST_RESULT):
            return frame.content
        if expired.is_set() or code == -signal.SIGPROF:
            raise WorkerTimeout(f"the time limit of {seconds:g} s passed")
        if code == -signal.SIGABRT or (frame is not None and frame.kind == NO_MEMORY):  # C++ and Rust abort
            raise _out_of_memory(memory)
        raise WorkerFailed(f"the worker process failed: {frame.content.decode() if frame else f'exit code {code}'}")

    def close(self) -> None:
        """End the worker; a later call starts another one."""
        with self._lock:
            self._end()

    @property
    def process_id(self) -> int | None:
        """Process id of the worker; None while there is none."""
        return self._process.pid if self._process is not None else None

    def _running(self) -> subprocess.Popen[bytes] | None:
        """Return the worker if it is alive; it may have been killed for memory since the last call."""
        if self._process is not None and self._process.poll() is not None:
            self._end()
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "corral_server.runner.isolation.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            raise WorkerFailed(f"the worker process cannot be started: {error}") from error
        with _killed_after(process, START_TIMEOUT):
            ready = read_frame(_pipe(process.stdout))
        if ready is None or ready.kind != READY:
            self._end()
            raise WorkerFailed("the worker process does not start")
        return process

    def _end(self) -> int | None:
        """End the worker; return its exit code, None without a worker."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        with contextlib.suppress(OSError):  # a request that was not written completely
            _pipe(process.stdin).close()
        _pipe(process.stdout).close()
        return process.wait()


def _out_of_memory(limit: int) -> WorkerOutOfMemory:
    return WorkerOutOfMemory(f"the memory limit of {limit >> 20} MiB was reached")


def shared_worker() -> WorkerProcess:
    """Return the worker of this process."""
    return _SHARED


def _exchange(process: subprocess.Popen[bytes], content: bytes) -> Frame | None:
    """Send a request and return the result; None when the worker ended."""
    try:
        write_frame(_pipe(process.stdin), REQUEST, content)
    except ValueError:
        return None
    except OSError:  # the worker ended; what it sent before says why
        pass
    return read_frame(_pipe(process.stdout))


@contextlib.contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill the process when the block takes longer; yield the event that tells so."""
    expired = threading.Event()

    def kill() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        timer.join()  # it may be about to kill


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "both pipes are opened with the process"
    return pipe


_SHARED = WorkerProcess()
atexit.register(_SHARED.close)
