"""CPU cores that this process may use, and how its compute threads wait for each other.

One thread more than there are cores, or a thread that spins too long, collapses the decoding speed. A container sees
all cores of its node; its share is in the CPU affinity and in the quotas of its control groups (version 2 or 1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from corral_server.system.cgroups import ROOT, SELF, ancestors, read_memberships, read_words


def available_cores(root: Path = ROOT, membership: Path = SELF) -> int:
    """Return whole cores, at least one: the affinity's number, or less when a quota up to the root allows less."""
    limits = [float(_affinity()), *_quotas(root, membership)]
    return max(1, int(min(limits)))


def _affinity() -> int:
    """Return the number of cores that the system schedules this process on: all where it has no affinity (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_spinning() -> None:
    """Set OpenMP's threads to spin for microseconds at a barrier, not for its default of milliseconds.

    Beside any other busy process long spinning takes the core that the awaited thread needs: on two shared cores it
    made decoding four to twenty times slower. It must be set before OpenMP is loaded. numpy gets one thread: it only
    looks for the largest value of a row, and its idle threads spin too.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of this process's control group and of its parents."""
    for hierarchy, controllers, path in read_memberships(membership):
        if hierarchy == "0":
            yield from (quota for folder in ancestors(root, path) if (quota := _v2_quota(folder)) is not None)
        elif "cpu" in controllers.split(","):
            mount = next((one for one in (root / controllers, root / "cpu") if one.is_dir()), root / "cpu")
            yield from (quota for folder in ancestors(mount, path) if (quota := _v1_quota(folder)) is not None)


def _v2_quota(folder: Path) -> float | None:
    words = read_words(folder / "cpu.max")
    return None if len(words) != 2 or words[0] == "max" else _ratio(words[0], words[1])


def _v1_quota(folder: Path) -> float | None:
    quota, period = read_words(folder / "cpu.cfs_quota_us"), read_words(folder / "cpu.cfs_period_us")
    if len(quota) != 1 or len(period) != 1 or quota[0].startswith("-"):
        return None
    return _ratio(quota[0], period[0])


def _ratio(quota: str, period: str) -> float | None:
    try:
        return int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
