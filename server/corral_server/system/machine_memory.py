"""Memory that this machine has for all runners together.

It is the memory of the machine, or of the container where that is less, without what other processes use. The page
cache does not count as used: the kernel reclaims it, and mapped weights are counted by their estimate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from corral_server.system import macos_memory
from corral_server.system.cgroup_memory import ContainerMemory, container_memory
from corral_server.system.cgroups import read_words

PROC = Path("/proc")


def memory_for_runners(
    pids: Collection[int],
    *,
    proc: Path = PROC,
    container: Callable[[], ContainerMemory | None] = container_memory,
    system: str = sys.platform,
) -> int | None:
    """Return the bytes that are free or used by the runners with these process ids; None when they are unknown."""
    if system == "darwin":
        return macos_memory.memory_for_runners(pids)
    machine = _read_fields(proc / "meminfo", ("MemTotal", "MemAvailable"))
    limits = [(machine["MemTotal"], machine["MemTotal"] - machine["MemAvailable"])] if len(machine) == 2 else []
    limited = container()
    if limited is not None:
        limits.append((limited.limit, limited.used))
    runners = sum(_unreclaimable_memory(proc / str(pid)) for pid in pids)
    return min((limit - max(0, used - runners) for limit, used in limits), default=None)


def _unreclaimable_memory(process: Path) -> int:
    """Return the resident bytes that the kernel cannot reclaim; 0 when the process has ended."""
    found = _read_fields(process / "status", ("VmRSS", "VmLck", "RssAnon", "RssShmem"))
    return min(found.pop("VmRSS", 0), sum(found.values()))


def _read_fields(file: Path, names: Iterable[str]) -> dict[str, int]:
    """Return bytes by name from lines such as ``RssAnon:  1234 kB`` (proc(5))."""
    words = read_words(file)
    positions = {word.removesuffix(":"): index for index, word in enumerate(words) if word.endswith(":")}
    values = {name: words[positions[name] + 1] for name in names if positions.get(name, len(words)) + 1 < len(words)}
    return {name: int(value) << 10 for name, value in values.items() if value.isascii() and value.isdigit()}
