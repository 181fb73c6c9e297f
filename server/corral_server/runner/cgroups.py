"""Where the kernel tells what this process's container may have: cgroups, version 2 or 1, from its own up to the root.

What always holds: a file that is missing or makes no sense is no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


def memberships(file: Path) -> Iterator[tuple[str, str, str]]:
    """Hierarchy, controllers and path of each line; version 2 has the hierarchy 0."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts[0], parts[1], parts[2]


def upwards(mount: Path, path: str) -> Iterator[Path]:
    """The cgroup's folder and its parents; in a container the path may not exist below the mount, the root does."""
    folder = mount / path.lstrip("/")
    while folder != mount and mount in folder.parents:
        yield folder
        folder = folder.parent
    yield mount


def words(file: Path) -> list[str]:
    """What a file says; nothing when it cannot be read."""
    try:
        return file.read_text().split()
    except OSError:
        return []
