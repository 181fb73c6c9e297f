"""How many cores this process may really use, and how its threads wait for each other.

One thread more than there are cores, or one that spins too long, collapses the decoding speed.

A container sees all cores of its node; its share is in the CPU affinity and in the quota of its cgroups (v2 or v1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")


def available_cores(root: Path = _ROOT, membership: Path = _SELF) -> int:
    """Whole cores, at least one: the affinity's, or fewer when a quota on the way up to the root allows less."""
    limits = [float(len(os.sched_getaffinity(0))), *_quotas(root, membership)]
    return max(1, int(min(limits)))


def spin_briefly() -> None:
    """Lets the kernels' threads spin for microseconds at a barrier, not for OpenMP's milliseconds, before they sleep.

    Beside any other busy process long spinning takes the core that the awaited thread needs: on two shared cores it
    made decoding four to twenty times slower. It must be set before OpenMP is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """Quotas in cores of every cgroup from this process's own up to the mount's root."""
    for hierarchy, controllers, path in _memberships(membership):
        if hierarchy == "0":
            yield from (q for folder in _upwards(root, path) if (q := _v2_quota(folder)) is not None)
        elif "cpu" in controllers.split(","):
            mount = next((m for m in (root / controllers, root / "cpu") if m.is_dir()), root / "cpu")
            yield from (q for folder in _upwards(mount, path) if (q := _v1_quota(folder)) is not None)


def _memberships(file: Path) -> Iterator[tuple[str, str, str]]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts[0], parts[1], parts[2]


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The cgroup's folder and its parents; in a container the path may not exist below the mount, the root does."""
    folder = mount / path.lstrip("/")
    while folder != mount and mount in folder.parents:
        yield folder
        folder = folder.parent
    yield mount


def _v2_quota(folder: Path) -> float | None:
    words = _words(folder / "cpu.max")
    if len(words) != 2 or words[0] == "max":
        return None
    return _ratio(words[0], words[1])


def _v1_quota(folder: Path) -> float | None:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if len(quota) != 1 or len(period) != 1 or quota[0].startswith("-"):
        return None
    return _ratio(quota[0], period[0])


def _ratio(quota: str, period: str) -> float | None:
    try:
        return int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
