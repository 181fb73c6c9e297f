"""Main module of the worker process: runs operations on untrusted input, one after the other.

Invariants:
- The process holds no secret: its environment has no setting of the runner, and it opens no file after its imports.
- Its memory and its CPU time for each request are limited by the kernel. It has a lower priority than the runner, and
  the kernel's out-of-memory killer ends it first.
- It ends with its standard input, so it never outlives the runner.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from corral_server.runner.isolation.frames import (
    FAILED,
    LAST_RESULT,
    MEMORY_BYTES,
    NO_MEMORY,
    READY,
    RESULT,
    Frame,
    read_frame,
    write_frame,
)


class _Memory(NamedTuple):
    """Mapped and resident bytes of the process."""

    mapped: int
    resident: int

    def limit(self, size: int) -> None:
        """Let the kernel refuse the process more than ``size`` bytes beyond these."""
        if self.mapped:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_AS, (self.mapped + size, self.mapped + MEMORY_BYTES))


Operation = Callable[[Mapping[str, object]], bytes]

OPERATIONS: Mapping[str, str] = {
    "template": "corral_server.runner.templates.client_template",
    "grammar": "corral_server.runner.sampling.grammar_trial",
    "image": "corral_server.runner.llama.image_file",
}
"""Modules whose function ``perform`` is an operation; imported by the first request that needs them."""
_KEPT_BYTES = 32 * 1024 * 1024
"""A worker that has grown by more than this ends after its request; the imports of templates and grammars take
27 MiB."""
_LOWER_PRIORITY = 5


def main() -> None:
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may look like a result
    start = _measured()
    _limit_process()
    start.limit(MEMORY_BYTES)
    write_frame(results, READY)
    while (frame := _next_frame(results)) is not None:
        if not _answer(frame.content, results, start):
            return
        start.limit(MEMORY_BYTES)  # the next request brings its own limit


def _next_frame(results: IO[bytes]) -> Frame | None:
    """Return the next request; None at the end of the input, and for one that exceeds the memory."""
    try:
        return read_frame(sys.stdin.buffer)
    except MemoryError:
        write_frame(results, NO_MEMORY)
        return None


def _answer(content: bytes, results: IO[bytes], start: _Memory) -> bool:
    """Perform one request and write its result; return whether the process can take another one.

    ``start`` is the memory at the start. A process that has grown too much is replaced.
    """
    try:
        request = json.loads(content)
        del content
        operation = _operation(request["operation"])
        memory: int = request["memory"]
        start.limit(memory)
        _limit_cpu(request["seconds"])
        result = operation(request["arguments"])
        _limit_cpu(0)
        keep = _measured().resident - start.resident < _KEPT_BYTES
        write_frame(results, RESULT if keep else LAST_RESULT, result)
    except MemoryError:
        write_frame(results, NO_MEMORY)
        return False
    except Exception as error:  # the runner gets its name and starts another worker
        write_frame(results, FAILED, type(error).__name__.encode())
        return False
    return keep


def _operation(name: str) -> Operation:
    operation: Operation = importlib.import_module(OPERATIONS[name]).perform
    return operation


def _limit_process() -> None:
    with contextlib.suppress(OSError):
        os.nice(_LOWER_PRIORITY)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        with contextlib.suppress(OSError, ValueError):  # not every system has each of them
            resource.setrlimit(limit, (0, 0))


def _limit_cpu(seconds: float) -> None:
    """Let the kernel end the process (SIGPROF) when it has used this much CPU time more; 0 removes the limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _measured() -> _Memory:
    """Return the memory of the process; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
    except OSError:
        return _Memory(0, 0)
    return _Memory(int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize())


if __name__ == "__main__":
    main()
