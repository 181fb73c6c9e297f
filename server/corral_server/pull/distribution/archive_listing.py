"""Members of a tar layer, as far as they can be read without downloading the layer.

- An uncompressed layer is read by ranges: the headers alone, whatever size the files between them have.
- Of a compressed layer the beginning is read. A GGUF file fills nearly all of its layer, so its header is there.
- Requests, bytes and members are bounded; beyond the bounds the listing is not ``complete``.
- A file is a GGUF file by its first four bytes, whatever its name is: RamaLama's files may have a digest as their name.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Protocol

import zstandard

from corral_core.base.errors import SourceError
from corral_server.pull.remote_files import Archive

Read = Callable[[int, int], bytes]
"""Returns up to the given number of bytes (second argument) from an offset on; raises SourceError."""

WINDOW: Final = 64 * 1024
PREFIX: Final = 512 * 1024
"""Bytes that are read of a compressed layer."""
MAX_WINDOWS: Final = 64
MAX_MEMBERS: Final = 4096
_MAX_READ: Final = 128 * 1024
"""Bytes of one read by tarfile, which reads extended headers as a whole."""
_MAX_UNPACKED: Final = 16 * 1024 * 1024
_MAGIC: Final = b"GGUF"


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file; ``path`` is relative, without a leading ``./``."""

    path: str
    size: int
    gguf: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """``complete``: no further members exist."""

    members: tuple[Member, ...]
    complete: bool


class _Stopped(Exception):
    """A bound was reached, or the beginning of a compressed layer has ended."""


def list_members(read: Read, archive: Archive, *, size: int) -> Listing:
    """List the regular files of a tar layer of ``size`` bytes.

    What the registry cannot send and what is not a tar archive ends the list.
    """
    members: list[Member] = []
    try:
        file = _Ranges(read, size) if archive is Archive.TAR else _Beginning(_unpacked(read(0, PREFIX), archive))
        with tarfile.open(fileobj=_Source(file), mode="r:", errorlevel=1) as tar:
            for info in tar:
                if len(members) >= MAX_MEMBERS:
                    return Listing(tuple(members), complete=False)
                if info.isreg() and (path := _relative(info.name)):
                    content = tar.extractfile(info)
                    magic = content.read(len(_MAGIC)) if content is not None else b""
                    members.append(Member(path, info.size, magic == _MAGIC))
        return Listing(tuple(members), complete=True)
    except (_Stopped, SourceError, tarfile.TarError, ValueError, OSError, EOFError, zlib.error, zstandard.ZstdError):
        return Listing(tuple(members), complete=False)


class _File(Protocol):
    size: int

    def read_at(self, offset: int, length: int) -> bytes: ...


class _Ranges:
    """Reads ranges through one window."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self.size = size
        self._start = 0
        self._window = b""
        self._requests = 0

    def read_at(self, offset: int, length: int) -> bytes:
        if not self._start <= offset <= offset + length <= self._start + len(self._window):
            self._requests += 1
            if self._requests > MAX_WINDOWS:
                raise _Stopped
            self._start, self._window = offset, self._read(offset, max(length, WINDOW))
        begin = offset - self._start
        return self._window[begin : begin + length]


class _Beginning:
    """The beginning of a file whose end is not known."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = 2**63

    def read_at(self, offset: int, length: int) -> bytes:
        if offset + length > len(self._data):
            raise _Stopped
        return self._data[offset : offset + length]


class _Source(io.RawIOBase):
    """What tarfile reads from."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < 0:
            raise _Stopped
        self._position = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        length = min(size, self._file.size - self._position)
        if not 0 <= size <= _MAX_READ:
            raise _Stopped
        data = self._file.read_at(self._position, length) if length > 0 else b""
        self._position += len(data)
        return data


def _unpacked(data: bytes, archive: Archive) -> bytes:
    if archive is Archive.TAR_GZIP:
        return zlib.decompressobj(wbits=31).decompress(data, _MAX_UNPACKED)
    reader = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(io.BytesIO(data))
    found = bytearray()
    try:
        while len(found) < _MAX_UNPACKED and (chunk := reader.read(WINDOW)):
            found += chunk
    except zstandard.ZstdError:
        if not found:
            raise
    return bytes(found)


def _relative(name: str) -> str:
    path = PurePosixPath(name.lstrip("/"))
    return str(path) if ".." not in path.parts and path.name and str(path).isprintable() else ""
