"""How much memory the kernel lets this process's container have, and how much of that is taken.

What always holds: a limit that is missing or makes no sense is none. What is in the page cache does not count as taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral_server.runner.cgroups import ROOT, SELF, memberships, upwards, words

_NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2 to the power of 63 where there is no limit."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Bytes: a container's ``limit``, and how many of them are ``used``, files in the page cache not counted."""

    limit: int
    used: int

    @property
    def free(self) -> int:
        return max(0, self.limit - self.used)


def host_memory(root: Path = ROOT, membership: Path = SELF) -> HostMemory | None:
    """The limit that leaves least, of all on the way up to the root; None without any."""
    return min(_limits(root, membership), key=lambda memory: memory.free, default=None)


def _limits(root: Path, membership: Path) -> Iterator[HostMemory]:
    for hierarchy, controllers, path in memberships(membership):
        if hierarchy == "0":
            found = (_memory(folder, "memory.max", "memory.current", "") for folder in upwards(root, path))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            found = (_memory(folder, *names) for folder in upwards(root / "memory", path))
        else:
            continue
        yield from (memory for memory in found if memory is not None)


def _memory(folder: Path, limit: str, used: str, prefix: str) -> HostMemory | None:
    most, now = _number(words(folder / limit)), _number(words(folder / used))
    if most is None or now is None or most >= _NO_LIMIT:
        return None
    stat = words(folder / "memory.stat")
    numbers = dict(zip(stat[::2], stat[1::2], strict=False))
    files = sum(_number([numbers.get(f"{prefix}{kind}_file", "0")]) or 0 for kind in ("active", "inactive"))
    return HostMemory(most, max(0, now - files))


def _number(said: list[str]) -> int | None:
    return int(said[0]) if len(said) == 1 and said[0].isascii() and said[0].isdigit() else None
