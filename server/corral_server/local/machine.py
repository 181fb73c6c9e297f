"""How much memory this machine has for runners, all of them together, as the kernel tells it.

It is the memory of the machine, or of the container where that has less, without what other processes have taken. Pages
of files do not count as taken: the kernel gives them back, and weights that are mapped are counted by their estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from corral_server.runner.cgroup_memory import HostMemory, host_memory
from corral_server.runner.cgroups import words

PROC = Path("/proc")


def capacity(
    runners: Collection[int], *, proc: Path = PROC, container: Callable[[], HostMemory | None] = host_memory
) -> int | None:
    """Bytes that are free or taken by these processes; None where the kernel does not say."""
    machine = _fields(proc / "meminfo", ("MemTotal", "MemAvailable"))
    limits = [(machine["MemTotal"], machine["MemTotal"] - machine["MemAvailable"])] if len(machine) == 2 else []
    contained = container()
    if contained is not None:
        limits.append((contained.limit, contained.used))
    ours = sum(_taken(proc / str(runner)) for runner in runners)
    return min((limit - max(0, used - ours) for limit, used in limits), default=None)


def _taken(process: Path) -> int:
    """What the process has in memory that the kernel cannot take back; 0 when it has ended."""
    found = _fields(process / "status", ("VmRSS", "VmLck", "RssAnon", "RssShmem"))
    return min(found.pop("VmRSS", 0), sum(found.values()))


def _fields(file: Path, names: Iterable[str]) -> dict[str, int]:
    """Bytes, of lines such as ``RssAnon:  1234 kB``."""
    said = words(file)
    places = {word.removesuffix(":"): place for place, word in enumerate(said) if word.endswith(":")}
    numbers = {name: said[places[name] + 1] for name in names if places.get(name, len(said)) + 1 < len(said)}
    return {name: int(number) << 10 for name, number in numbers.items() if number.isascii() and number.isdigit()}
