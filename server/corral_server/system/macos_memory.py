"""Memory of a Mac for all runners together, by psutil: macOS has no ``/proc`` and no control groups.

psutil reads ``hw.memsize`` and ``host_statistics64``; what is available are its free and inactive pages
(https://psutil.readthedocs.io/en/latest/#psutil.virtual_memory). This has been tested with replaced values only, not on
a Mac.
"""

from __future__ import annotations

from collections.abc import Callable, Collection


def memory_for_runners(pids: Collection[int], *, resident: Callable[[int], int] | None = None) -> int:
    """Return the bytes that are free or used by the runners with these process ids."""
    import psutil  # it is part of the extra ``serve``, and not of the runner image

    memory = psutil.virtual_memory()
    read = resident or resident_memory
    return int(min(memory.total, memory.available + sum(read(pid) for pid in pids)))


def resident_memory(pid: int) -> int:
    """Return the resident bytes of a process, 0 if it has ended or belongs to another user."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
