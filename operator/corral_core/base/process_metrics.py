"""Metrics of every process: version, CPU, memory and file descriptors, under Prometheus' conventional names."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from corral_core.base.exposition import Metric, counter, gauge

_STARTED = time.time()
_PROC = Path("/proc/self")


def process_families() -> Iterator[Metric]:
    """Yield the metric families of this process; values that the system does not provide are left out."""
    yield gauge("corral_build_info", "Version of Corral.", [({"version": build_version()}, 1)])
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield counter("process_cpu_seconds_total", "User and system CPU time.", [({}, used.ru_utime + used.ru_stime)])
    yield gauge("process_start_time_seconds", "Start time of the process in Unix seconds.", [({}, _STARTED)])
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield gauge("process_max_fds", "Maximum number of open file descriptors.", [({}, limit)] if limit >= 0 else [])
    if _PROC.is_dir():
        pages = int((_PROC / "statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        yield gauge("process_resident_memory_bytes", "Resident memory.", [({}, resident)])
        yield gauge("process_open_fds", "Open file descriptors.", [({}, sum(1 for _ in (_PROC / "fd").iterdir()))])


def build_version() -> str:
    """Return the version of the installed package, ``unknown`` if it is not installed."""
    try:
        return version("corral")
    except PackageNotFoundError:
        return "unknown"
