"""Beginning of a remote file, read by ranges."""

from __future__ import annotations

from corral_core.sources.snapshot import FileRole
from corral_server.pull.remote_files import HttpLocation, Location, RemoteFile
from corral_server.pull.remote_header import FIRST_WINDOW, RemoteHeader


def test_bytes_before_the_window_are_dropped_in_a_small_buffer() -> None:
    """A server that ignores ranges sends the whole file."""

    class Endless:
        start = 0
        total: int | None = 1 << 30
        version = ""
        largest = 0

        def readinto(self, buffer: memoryview) -> int:
            self.largest = max(self.largest, len(buffer))
            return len(buffer)

        def close(self) -> None:
            """Do nothing."""

    class Reader:
        stream = Endless()

        def open(self, location: Location, *, start: int = 0, end: int | None = None) -> Endless:
            return self.stream

    header = RemoteHeader(Reader(), RemoteFile("m.gguf", FileRole.WEIGHTS, HttpLocation("https://host/m"), 1 << 30))
    header.seek(64 << 20)
    assert len(header.read(10)) == 10
    assert Reader.stream.largest <= FIRST_WINDOW
