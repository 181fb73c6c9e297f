"""What every process tells of itself: its version, and what it takes of its machine, under Prometheus' usual names."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from corral_core.metrics import Family, counter, gauge

_STARTED = time.time()
_PROC = Path("/proc/self")


def process_families() -> Iterator[Family]:
    """A Collector; what the system does not tell is left out."""
    yield gauge("corral_build_info", "The version of Corral.", [({"version": _version()}, 1)])
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield counter("process_cpu_seconds_total", "CPU time spent.", [({}, used.ru_utime + used.ru_stime)])
    yield gauge("process_start_time_seconds", "When the process started, in Unix time.", [({}, _STARTED)])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield gauge("process_max_fds", "Files that may be open.", [({}, limit)] if limit >= 0 else [])
    if _PROC.is_dir():
        pages = int((_PROC / "statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        yield gauge("process_resident_memory_bytes", "Memory that is in use.", [({}, resident)])
        yield gauge("process_open_fds", "Files that are open.", [({}, sum(1 for _ in (_PROC / "fd").iterdir()))])


def _version() -> str:
    try:
        return version("corral")
    except PackageNotFoundError:
        return "unknown"
