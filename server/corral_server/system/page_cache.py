"""Residency of files in the page cache."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

_MAP_FAILED = ctypes.c_void_p(-1).value


def are_cached(files: Iterable[Path]) -> bool:
    """Whether all pages of the files are in memory (``mincore``); False if that cannot be found out."""
    return all(_is_cached(file) for file in files)


def _is_cached(path: Path) -> bool:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    finally:
        os.close(descriptor)
    if address in (None, _MAP_FAILED):
        return False
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    known = libc.mincore(address, size, pages) == 0
    libc.munmap(address, size)
    return known and b"\0" not in pages.raw
