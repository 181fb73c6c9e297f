"""Bounded forward reader of a file whose contents are untrusted.

- Every length is checked against the file before data is read for it.
- About a megabyte, or the string that is being read, is in memory.
- The position only moves forward, so parsing takes time linear in the size of the header, whatever it claims.
"""

from __future__ import annotations

import struct
from typing import Protocol

from corral_core.base.errors import GGUFError

_CHUNK = 1 << 20
_LENGTH = struct.Struct("<Q")


class ForwardReader(Protocol):
    """An open file, or a remote one that is read by ranges. ``seek`` is called with larger offsets only."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, and none only at the end."""
        ...

    def seek(self, offset: int, /) -> object: ...


class BoundedFile:
    """Reads and skips forward with checked lengths; ``what`` names the data in errors."""

    def __init__(self, file: ForwardReader, name: str, *, size: int, limit: int) -> None:
        self._file = file
        self._data = b""
        self._start = 0
        self._at = 0
        self.name = name
        self.size = size
        self.limit = min(size, limit)

    @property
    def position(self) -> int:
        return self._start + self._at

    @property
    def remaining(self) -> int:
        return self.limit - self.position

    def read(self, length: int, what: str) -> bytes:
        at = self._reserve(length, what)
        self._at = at + length
        return self._data[at : at + length]

    def skip(self, length: int, what: str) -> None:
        if length > self.remaining:
            raise self.error(f"{what} claims {length} bytes and {self.remaining} are left")
        if self._at + length <= len(self._data):
            self._at += length
        else:
            self._start, self._at, self._data = self.position + length, 0, b""
            self._file.seek(self._start)

    def skip_strings(self, count: int, what: str) -> None:
        """Skip ``count`` length-prefixed strings; the hot loop of a header with a vocabulary."""
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
        return GGUFError(f"{self.name} is damaged or not a GGUF file: {text} (at byte {self.position})")

    def _reserve(self, length: int, what: str) -> int:
        """Buffer the next ``length`` bytes and return their offset in the buffer."""
        if self._at + length <= len(self._data):
            return self._at
        if length > self.remaining:
            raise self.error(f"{what} needs {length} bytes and {self.remaining} are left")
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
