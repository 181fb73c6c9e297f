"""Connections of a transfer: threads that read parts, and the watch over those that hang.

A thread that is blocked in a read cannot be ended. A connection that hangs loses its part, and another thread takes its
place; the first one ends when its read does, which the client's own timeout bounds.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from corral_server.pull.download.parts import Part
from corral_server.pull.download.transfer import Failures, Transfer
from corral_server.pull.errors import TransientError
from corral_server.pull.remote_files import ByteStream, RangeReader, RemoteFile

MAX_HANGING: Final = 64
"""Connections of a transfer that hang; one more ends it."""
_OPENING: Final = 2.0
"""Factor of the time that a request may take until its response begins."""


class Connection:
    """One thread that reads parts until the transfer ends."""

    def __init__(self, number: int, transfer: Transfer, *, reader: RangeReader) -> None:
        self.number = number
        self._transfer = transfer
        self._reader = reader
        self._buffer = memoryview(bytearray(transfer.options.buffer))
        self._failures = Failures()
        self._speed = 0.0
        self._part: Part | None = None
        self._deadline = 0.0
        self._abandoned = False
        threading.Thread(target=self._run, name=f"pull-{number}", daemon=True).start()

    def hangs(self) -> bool:
        """Return whether no byte arrived for too long."""
        return self._part is not None and time.monotonic() > self._deadline

    def abandon(self) -> None:
        """Take the part away from the connection; the thread ends with its read."""
        self._abandoned = True
        if (part := self._part) is not None:
            self._transfer.take_away(part)

    def _run(self) -> None:
        while not self._abandoned and (part := self._transfer.take(self.number, self._speed)) is not None:
            delay = self._attempt(part)
            if delay > 0:
                self._transfer.stopped.wait(delay)

    def _attempt(self, part: Part) -> float:
        """Read a part; return the seconds to wait before the next one."""
        file, generation = self._transfer.location()
        self._expect(_OPENING * self._transfer.options.stall)
        self._part = part
        try:
            self._read(part, file)
        except Exception as error:
            return 0.0 if self._abandoned else self._transfer.handle(error, self._failures, generation=generation)
        finally:
            self._part = None
            self._transfer.give_back(part)
        return 0.0

    def _read(self, part: Part, file: RemoteFile) -> None:
        started, first = time.monotonic(), part.position
        stream = self._reader.open(file.location, start=first, end=part.end)
        try:
            skipped = self._transfer.accept(part, stream)
            while skipped > 0:
                skipped -= self._receive(stream, min(skipped, len(self._buffer)), final=False)
            self._copy(stream, part)
        finally:
            stream.close()
        if part.position - first >= self._transfer.options.min_part:
            self._speed = (part.position - first) / max(time.monotonic() - started, 1e-6)

    def _copy(self, stream: ByteStream, part: Part) -> None:
        """Write the response into the file, up to the part's end."""
        while (size := part.left(len(self._buffer))) > 0:
            count = self._receive(stream, size, final=part.end is None)
            if count == 0:
                self._transfer.end_of_file(part)
                return
            if not self._transfer.write(part, self._buffer[:count]):
                return

    def _receive(self, stream: ByteStream, size: int, *, final: bool) -> int:
        """Read at most ``size`` bytes, within the rate limit. Raises TransientError at the end, unless ``final``."""
        transfer = self._transfer
        count = stream.readinto(self._buffer[: transfer.limit.chunk(size)])
        if (count == 0 and not final) or self._abandoned or transfer.stopped.is_set():
            raise TransientError("the response ended early")
        delay = transfer.limit.delay(count)
        self._expect(transfer.options.stall + delay)
        if delay > 0:
            transfer.stopped.wait(delay)
        return count

    def _expect(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds


class Connections:
    """The connections of one transfer."""

    def __init__(self, transfer: Transfer, reader: RangeReader) -> None:
        self._transfer = transfer
        self._reader = reader
        self._hanging = 0
        self._connections = [Connection(number, transfer, reader=reader) for number in range(transfer.options.parallel)]

    def replace_hanging(self) -> None:
        """Give the parts of connections that hang to new ones; too many of them end the transfer."""
        for number, connection in enumerate(self._connections):
            if not connection.hangs():
                continue
            self._hanging += 1
            connection.abandon()
            if self._hanging > MAX_HANGING:
                self._transfer.stop(TransientError("the server accepts requests and sends nothing"))
                return
            self._connections[number] = Connection(number, self._transfer, reader=self._reader)
