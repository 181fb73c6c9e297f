"""Lets go of the weights' pages that llama.cpp has copied: into the order its kernels read, or to a GPU.

The file stays mapped, so both would count as this process's memory for ever: twice the weights for most quantized
models. What always holds: the mapping is of a file and only read, so a page that is needed after all comes back from
the page cache by itself.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_DONTNEED = 4


def forget_pages(weights: Path) -> int:
    """Makes no page of the file resident until it is read again; returns how many bytes of it are mapped.

    Locked pages stay, and so does everything on a system without ``/proc``.
    """
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    forgotten = 0
    for start, end in _mappings(os.path.realpath(weights)):
        if libc.madvise(start, end - start, _DONTNEED) == 0:
            forgotten += end - start
    return forgotten


def _mappings(path: str) -> Iterator[tuple[int, int]]:
    """Addresses where the file is mapped for reading alone."""
    lines = _MAPS.read_text("utf-8", "replace").splitlines() if _MAPS.exists() else []
    for line in lines:
        match line.split(maxsplit=5):
            case [addresses, access, _, _, _, name] if access.startswith("r-") and name == path:
                start, _, end = addresses.partition("-")
                yield int(start, 16), int(end, 16)
