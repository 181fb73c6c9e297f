"""How many cores this process may really use, and how its threads wait for each other.

One thread more than there are cores, or one that spins too long, collapses the decoding speed.

A container sees all cores of its node; its share is in the CPU affinity and in the quota of its cgroups (v2 or v1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from corral_server.runner.cgroups import ROOT, SELF, memberships, upwards, words


def available_cores(root: Path = ROOT, membership: Path = SELF) -> int:
    """Whole cores, at least one: the affinity's, or fewer when a quota on the way up to the root allows less."""
    limits = [float(len(os.sched_getaffinity(0))), *_quotas(root, membership)]
    return max(1, int(min(limits)))


def spin_briefly() -> None:
    """Lets the kernels' threads spin for microseconds at a barrier, not for OpenMP's milliseconds, before they sleep.

    Beside any other busy process long spinning takes the core that the awaited thread needs: on two shared cores it
    made decoding four to twenty times slower. It must be set before OpenMP is loaded. numpy's own threads spin too, and
    have nothing to do here: it looks for the largest of a row.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """Quotas in cores of every cgroup from this process's own up to the mount's root."""
    for hierarchy, controllers, path in memberships(membership):
        if hierarchy == "0":
            yield from (q for folder in upwards(root, path) if (q := _v2_quota(folder)) is not None)
        elif "cpu" in controllers.split(","):
            mount = next((m for m in (root / controllers, root / "cpu") if m.is_dir()), root / "cpu")
            yield from (q for folder in upwards(mount, path) if (q := _v1_quota(folder)) is not None)


def _v2_quota(folder: Path) -> float | None:
    said = words(folder / "cpu.max")
    return None if len(said) != 2 or said[0] == "max" else _ratio(said[0], said[1])


def _v1_quota(folder: Path) -> float | None:
    quota, period = words(folder / "cpu.cfs_quota_us"), words(folder / "cpu.cfs_period_us")
    if len(quota) != 1 or len(period) != 1 or quota[0].startswith("-"):
        return None
    return _ratio(quota[0], period[0])


def _ratio(quota: str, period: str) -> float | None:
    try:
        return int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
