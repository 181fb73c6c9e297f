"""Range reader over bytes in memory, with failures on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from corral_core.base.errors import SourceError
from corral_server.pull.errors import LocationExpired, TransientError
from corral_server.pull.remote_files import HttpLocation, Location


@dataclass
class Fault:
    """What one response does wrong. ``after`` bytes it is cut, ends early or hangs; ``refuse`` is raised at once."""

    refuse: Exception | None = None
    after: int | None = None
    cut: bool = True
    hang: bool = False
    corrupt: bool = False
    version: str | None = None
    ignore_range: bool = False
    other_range: bool = False
    piece: int = 2**30


@dataclass
class RangeServer:
    """Serves ``content``. ``faults`` yields the fault of each request in order, None for a good response."""

    content: bytes
    faults: Iterator[Fault | None] = field(default_factory=lambda: iter(()))
    ranges: bool = True
    sized: bool = True
    version: str = ""
    valid_urls: set[str] = field(default_factory=set)
    on_read: Callable[[int], None] = lambda position: None
    requests: list[tuple[int, int | None]] = field(default_factory=list)
    sent: int = 0
    open_streams: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> MemoryStream:
        assert isinstance(location, HttpLocation)
        with self.lock:
            self.requests.append((start, end))
            fault = next(self.faults, None) or Fault()
        if fault.refuse is not None:
            raise fault.refuse
        if self.valid_urls and location.url not in self.valid_urls:
            raise LocationExpired("the URL is not valid any more")
        if start >= max(1, len(self.content)):
            raise SourceError("416")
        if not self.ranges or fault.ignore_range:
            start, end = 0, None
        elif fault.other_range and start:
            start -= 1
        with self.lock:
            self.open_streams += 1
        return MemoryStream(self, fault, start, end=end)


class MemoryStream:
    def __init__(self, server: RangeServer, fault: Fault, start: int, *, end: int | None) -> None:
        self.start = start
        self.total = len(server.content) if server.sized else None
        self.version = server.version if fault.version is None else fault.version
        self._server = server
        self._fault = fault
        self._position = start
        self._end = len(server.content) if end is None else min(end, len(server.content))
        self._closed = False

    def readinto(self, buffer: memoryview) -> int:
        fault, server = self._fault, self._server
        assert not self._closed
        server.on_read(self._position)
        stop = self._end
        if fault.after is not None:
            stop = min(stop, self.start + fault.after)
            if self._position >= stop and stop < self._end:
                if fault.hang:
                    server.released.wait(60)
                if fault.cut or fault.hang:
                    raise TransientError("the connection was cut")
                return 0
        count = min(len(buffer), stop - self._position, fault.piece)
        data = server.content[self._position : self._position + count]
        if fault.corrupt and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        buffer[:count] = data
        self._position += count
        with server.lock:
            server.sent += count
        return count

    def close(self) -> None:
        assert not self._closed
        self._closed = True
        with self._server.lock:
            self._server.open_streams -= 1
