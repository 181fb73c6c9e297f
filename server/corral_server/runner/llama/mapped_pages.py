"""Releases the memory pages of a mapped weights file after llama.cpp has copied them.

llama.cpp copies weights into the layout of its CPU kernels or to a GPU, and keeps the file mapped. Both would count as
memory of the process: twice the weights for most quantized models. The mapping is of a file and read-only, so a page
that is needed again is read from the page cache.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_MADV_DONTNEED = 4


def release_pages(weights: Path) -> int:
    """Release the resident pages of the file (``madvise``); return how many bytes of it are mapped.

    Locked pages stay. Without ``/proc`` nothing is released.
    """
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    released = 0
    for start, end in _mappings(os.path.realpath(weights)):
        if libc.madvise(start, end - start, _MADV_DONTNEED) == 0:
            released += end - start
    return released


def _mappings(path: str) -> Iterator[tuple[int, int]]:
    """Yield the address ranges of the file's read-only mappings."""
    lines = _MAPS.read_text("utf-8", "replace").splitlines() if _MAPS.exists() else []
    for line in lines:
        match line.split(maxsplit=5):
            case [addresses, access, _, _, _, name] if access.startswith("r-") and name == path:
                start, _, end = addresses.partition("-")
                yield int(start, 16), int(end, 16)
