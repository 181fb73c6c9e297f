"""Control groups of this process, version 2 or 1, from its own group up to the root of the mount.

A file that is missing or malformed means no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


def read_memberships(file: Path) -> Iterator[tuple[str, str, str]]:
    """Yield hierarchy, controllers and path of each line (cgroups(7)); the hierarchy of version 2 is 0."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts[0], parts[1], parts[2]


def ancestors(mount: Path, path: str) -> Iterator[Path]:
    """Yield the group's folder and its parents up to the mount.

    In a container the path may not exist below the mount; the mount itself does.
    """
    folder = mount / path.lstrip("/")
    while folder != mount and mount in folder.parents:
        yield folder
        folder = folder.parent
    yield mount


def read_words(file: Path) -> list[str]:
    """Return the whitespace-separated words of a file; none when it cannot be read."""
    try:
        return file.read_text().split()
    except OSError:
        return []
