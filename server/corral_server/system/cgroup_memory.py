"""Memory limit and usage of this process's container, from its control groups.

A missing or malformed limit means no limit. The page cache does not count as used: the kernel reclaims it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corral_server.system.cgroups import ROOT, SELF, ancestors, read_memberships, read_words

_UNLIMITED = 1 << 60
"""Version 1 reports a number near 2**63 without a limit."""


@dataclass(frozen=True, slots=True)
class ContainerMemory:
    """Bytes; ``used`` does not include the page cache."""

    limit: int
    used: int

    @property
    def free(self) -> int:
        return max(0, self.limit - self.used)


def container_memory(root: Path = ROOT, membership: Path = SELF) -> ContainerMemory | None:
    """Return the limit with the least free memory, of all control groups up to the root; None without a limit."""
    return min(_limits(root, membership), key=lambda memory: memory.free, default=None)


def _limits(root: Path, membership: Path) -> Iterator[ContainerMemory]:
    for hierarchy, controllers, path in read_memberships(membership):
        if hierarchy == "0":
            found = (_read_limit(folder, "memory.max", "memory.current", prefix="") for folder in ancestors(root, path))
        elif "memory" in controllers.split(","):
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
            found = (_read_limit(folder, limit, used, prefix="total_") for folder in ancestors(root / "memory", path))
        else:
            continue
        yield from (memory for memory in found if memory is not None)


def _read_limit(folder: Path, limit_file: str, used_file: str, *, prefix: str) -> ContainerMemory | None:
    limit, used = _number(read_words(folder / limit_file)), _number(read_words(folder / used_file))
    if limit is None or used is None or limit >= _UNLIMITED:
        return None
    stat = read_words(folder / "memory.stat")
    fields = dict(zip(stat[::2], stat[1::2], strict=False))
    page_cache = sum(_number([fields.get(f"{prefix}{kind}_file", "0")]) or 0 for kind in ("active", "inactive"))
    return ContainerMemory(limit, max(0, used - page_cache))


def _number(words: list[str]) -> int | None:
    return int(words[0]) if len(words) == 1 and words[0].isascii() and words[0].isdigit() else None
