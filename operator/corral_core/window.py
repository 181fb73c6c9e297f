"""A window over a file of untrusted lengths: every length is checked against the file before anything is read for it.

The window holds about a megabyte, or the one text that is being read, and only moves forward, so that a walk over a
header costs time linear in its size whatever it claims.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from corral_core.errors import GGUFError

_CHUNK = 1 << 20
_LENGTH = struct.Struct("<Q")


class Window:
    """A part of the file in memory, moved forward as the header is read; ``take`` and ``skip`` check every length."""

    def __init__(self, file: BinaryIO, path: Path, *, limit: int) -> None:
        self._file = file
        self._data = b""
        self._start = 0
        self._at = 0
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self.limit = min(self.size, limit)

    @property
    def position(self) -> int:
        return self._start + self._at

    @property
    def left(self) -> int:
        return self.limit - self.position

    def take(self, length: int, what: str) -> bytes:
        at = self._reserve(length, what)
        self._at = at + length
        return self._data[at : at + length]

    def skip(self, length: int, what: str) -> None:
        if length > self.left:
            raise self.error(f"{what} claims {length} bytes and {self.left} are left")
        if self._at + length <= len(self._data):
            self._at += length
        else:
            self._start, self._at, self._data = self.position + length, 0, b""
            self._file.seek(self._start)

    def skip_texts(self, count: int, what: str) -> None:
        """Walks over ``count`` length-prefixed texts: the inner loop of a header with a vocabulary."""
        unpack = _LENGTH.unpack_from
        for _ in range(count):
            at = self._at
            if at + 8 > len(self._data):
                at = self._reserve(8, what)
            end = at + 8 + unpack(self._data, at)[0]
            if end <= len(self._data):
                self._at = end
            else:
                self._at = at + 8
                self.skip(end - at - 8, what)

    def error(self, text: str) -> GGUFError:
        return GGUFError(f"{self.path} is damaged or no GGUF: {text} (at byte {self.position})")

    def _reserve(self, length: int, what: str) -> int:
        """Makes the next ``length`` bytes lie in the window; gives their place in it."""
        if self._at + length <= len(self._data):
            return self._at
        if length > self.left:
            raise self.error(f"{what} needs {length} bytes and {self.left} are left")
        rest = self._data[self._at :]
        self._start, self._at = self.position, 0
        parts, have = [rest], len(rest)
        while have < length:
            part = self._file.read(max(_CHUNK, length - have))
            if not part:
                raise self.error(f"the file ends inside {what}")
            parts.append(part)
            have += len(part)
        self._data = b"".join(parts)
        return 0
