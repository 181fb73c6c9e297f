"""Beginning of a remote file as a file object, read by ranges: the header of 40 GB of weights takes a few megabytes.

- One window is in memory, at most ``MAX_WINDOW`` bytes or what one read asks for. Windows grow, so a long header takes
  few requests.
- Reading goes forward; a seek backwards fetches again.
- A server that ignores ranges sends the file from its start, and the bytes before the window are read and dropped.
"""

from __future__ import annotations

import io
from contextlib import closing
from typing import Final

from corral_core.base.errors import SourceError
from corral_server.pull.remote_files import ByteStream, RangeReader, RemoteFile

FIRST_WINDOW: Final = 1 << 20
MAX_WINDOW: Final = 8 << 20
MAX_READ: Final = 512 << 20
"""Bytes that are received at most; the longest known headers have 30 MB."""
_SKIPPED: Final = 256 << 10
"""Bytes of the buffer for what is dropped."""


class RemoteHeader(io.RawIOBase):
    """Read-only and seekable. ``size`` is the file's size in bytes, None if the server does not say it.

    ``read`` returns what was asked for, or less at the end of a window or of the file. It raises SourceError,
    TransientError and LocationExpired, as ``RangeReader.open``.
    """

    def __init__(self, reader: RangeReader, file: RemoteFile) -> None:
        super().__init__()
        self._reader = reader
        self._file = file
        self._position = 0
        self._start = 0
        self._window = b""
        self._ahead = FIRST_WINDOW
        self._received = 0
        self.size = file.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            if self.size is None:
                raise OSError("the server does not say the size of the file")
            offset += self.size
        elif whence == io.SEEK_CUR:
            offset += self._position
        if offset < 0:
            raise ValueError("a position before the start of the file")
        self._position = offset
        return offset

    def find_size(self) -> int | None:
        """Return the size, fetched with the start of the file if it is not known yet."""
        if self.size is None and not self._window:
            self._fetch(0)
        return self.size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer, as in RawIOBase
        wanted = len(buffer)
        if not self._start <= self._position < self._start + len(self._window):
            self._fetch(wanted)
        at = self._position - self._start
        data = self._window[at : at + wanted]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, wanted: int) -> None:
        """Read the window at the position. It is empty at the end of the file."""
        start = self._position
        end = start + max(wanted, self._ahead)
        self._ahead = min(2 * self._ahead, MAX_WINDOW)
        if self.size is not None:
            end = min(end, self.size)
        self._start, self._window = start, b""
        if end <= start:
            return
        with closing(self._reader.open(self._file.location, start=start, end=end)) as stream:
            self.size = stream.total if self.size is None else self.size
            self._received += end - stream.start
            if self._received > MAX_READ:
                raise SourceError(f"the header of {self._file.name} exceeds {MAX_READ >> 20} MiB: it is not a model")
            _skip(stream, start - stream.start)
            self._window = _read(stream, end - start)


def _skip(stream: ByteStream, count: int) -> None:
    """Read and drop the next ``count`` bytes; fewer at the end of the file."""
    buffer = memoryview(bytearray(min(max(0, count), _SKIPPED)))
    while count > 0 and (received := stream.readinto(buffer[:count])) > 0:
        count -= received


def _read(stream: ByteStream, count: int) -> bytes:
    """Read the next ``count`` bytes; fewer at the end of the file."""
    data = bytearray(max(0, count))
    view, have = memoryview(data), 0
    while have < count:
        received = stream.readinto(view[have:])
        if received == 0:
            break
        have += received
    return bytes(view[:have])
