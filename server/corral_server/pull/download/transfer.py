"""Transfer: the connections of one download and what they share.

- One lock guards parts, completed ranges and counters. No system call and no request is made under it.
- Data is written under the lock of its part, and only while the part is active: a connection that was given up never
  writes into a file that was published or handed to another connection.
- A failure counts as one in a row only if no byte of the file arrived since the connection's last failure.
- A server that names a time (Retry-After) is asked by fewer connections afterwards.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from corral_core.base.quantities import format_bytes
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.download.partial import Descriptor
from corral_server.pull.download.parts import Part, Parts
from corral_server.pull.download.ranges import RangeSet
from corral_server.pull.download.rates import RateLimit
from corral_server.pull.errors import FileChanged, LocationExpired, PullError, TransientError
from corral_server.pull.remote_files import ByteStream, RemoteFile

Refresh = Callable[[], RemoteFile]
"""Resolves the source again and returns the same file with a location that is valid."""

_PARTS_PER_CONNECTION: Final = 4
"""Completed parts after which one more connection is tried again."""


@dataclass(slots=True)
class Failures:
    """Failures of one connection in a row, without a byte of the file between them."""

    count: int = 0
    completed: int = -1

    def add(self, completed: int) -> int:
        """Count a failure at ``completed`` bytes of the file and return the failures in a row."""
        self.count = self.count + 1 if completed == self.completed else 1
        self.completed = completed
        return self.count


class Transfer:
    """State of one attempt to download a file; thread-safe."""

    def __init__(
        self,
        file: RemoteFile,
        descriptor: Descriptor,
        *,
        done: RangeSet,
        version: str,
        size: int | None,
        options: DownloadOptions,
        limit: RateLimit,
        on_total: Callable[[int], None],
        refresh: Refresh | None = None,
    ) -> None:
        self.options = options
        self.limit = limit
        self.descriptor = descriptor
        self.stopped = threading.Event()
        self._file = file
        self._version = version
        self._on_total = on_total
        self._refresh = refresh
        self._done = done
        self._completed = done.size
        self._parts = Parts(done, total=size, options=options)
        self._changed = threading.Condition()
        self._renewal = threading.Lock()
        self._generation = 0
        self._renewals = Failures()
        self._answered = False
        self._single = False
        self._assumed = False
        self._allowed = options.parallel
        self._calm = 0
        self._resume_at = 0.0
        self._error: Exception | None = None

    @property
    def total(self) -> int | None:
        return self._parts.total

    @property
    def version(self) -> str:
        """ETag or version id, as resolved or as the first response said."""
        return self._version

    @property
    def error(self) -> Exception | None:
        """The error that ended the transfer."""
        return self._error

    @property
    def assumed_size(self) -> bool:
        """Whether the size is that of a body that ended, since the server named none."""
        return self._assumed

    @property
    def finished(self) -> bool:
        return self.total is not None and self._completed >= self.total

    @property
    def completed(self) -> int:
        return self._completed

    def front(self) -> int:
        """Return the number of bytes that are complete from the start of the file on."""
        with self._changed:
            return self._done.front

    def ranges(self) -> RangeSet:
        """Return a copy of the completed ranges."""
        with self._changed:
            return self._done.copy()

    def stop(self, error: Exception | None = None) -> None:
        """End all connections. The first error is the transfer's."""
        with self._changed:
            self._error = self._error or error
            self.stopped.set()
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Wait for a change of the transfer's state, for ``timeout`` seconds at most."""
        with self._changed:
            if not self.finished and not self.stopped.is_set():
                self._changed.wait(timeout)

    def location(self) -> tuple[RemoteFile, int]:
        """Return the file with its present location, and the number of renewals."""
        with self._changed:
            return self._file, self._generation

    def take(self, number: int, speed: float) -> Part | None:
        """Wait for a part for the connection ``number``; None at the end of the transfer."""
        with self._changed:
            while not self.stopped.is_set() and not self.finished:
                pause = self._resume_at - time.monotonic()
                if number < self._connections() and pause <= 0:
                    part = self._parts.take_rest() if self._single else self._parts.take(speed)
                    if part is not None:
                        return part
                self._changed.wait(max(0.05, min(pause, 1.0)) if pause > 0 else 1.0)
        return None

    def _connections(self) -> int:
        """Return the number of connections to use: one until the server has answered."""
        return self._allowed if self._answered and not self._single else 1

    def give_back(self, part: Part) -> None:
        """Take a part back; what was not read is handed out again."""
        with self._changed:
            self._parts.give_back(part)
            if part.active and part.position == part.end:
                self._calm += 1
                if self._calm >= _PARTS_PER_CONNECTION * self._allowed and self._allowed < self.options.parallel:
                    self._allowed, self._calm = self._allowed + 1, 0
            part.active = False
            self._changed.notify_all()

    def take_away(self, part: Part) -> None:
        """Take a part from a connection that hangs; it cannot write any more."""
        if not part.lock.acquire(blocking=False):
            return  # it waits for the disk, not for the network
        part.active = False
        part.lock.release()
        self.give_back(part)

    def accept(self, part: Part, stream: ByteStream) -> int:
        """Check a response and return the bytes to skip at its start. Raises FileChanged, StoreFull, TransientError."""
        with self._changed:
            known = self.total if self.total is not None else self._file.size
            total = stream.total
            if total is not None and known is not None and total != known:
                raise FileChanged(f"{self._file.name} has {total} bytes on the server instead of {known}")
            self._check_version(stream)
        if self.total is None and total is not None:
            self._on_total(total)
        with self._changed:
            if self.total is None and total is not None:
                self._parts.set_total(total)
            if stream.start == 0 < part.position:
                if not self._single:
                    self._single = True
                    self._changed.notify_all()
                    raise RangesIgnored("the server ignores ranges")
                return part.position
            if stream.start != part.position:
                raise TransientError("the server answers another range than the requested one")
            self._answered = True
            self._changed.notify_all()
        return 0

    def _check_version(self, stream: ByteStream) -> None:
        if self._file.sha256 is not None and not (self._file.version and stream.version):
            return
        if self._version and stream.version != self._version:
            raise FileChanged(f"{self._file.name} has changed on the server during the download")
        self._version = self._version or stream.version

    def write(self, part: Part, data: memoryview) -> bool:
        """Write data at the part's position; returns whether the connection may go on. Raises OSError."""
        with part.lock:
            if not part.active or self.stopped.is_set():
                return False
            position = part.position
            written = 0
            while written < len(data):
                written += os.pwrite(self.descriptor.number, data[written:], position + written)
            with self._changed:
                part.position = position + len(data)
                self._done.add(position, part.position)
                self._completed = self._done.size
                if self.finished:
                    self._changed.notify_all()
        return True

    def end_of_file(self, part: Part) -> bool:
        """Note the end of a response; returns whether it is the end of the file, whose size was not known."""
        with self._changed:
            if part.end is not None or not part.active:
                return False
            self._parts.set_total(part.position)
            self._assumed = True
            self._changed.notify_all()
            return True

    def handle(self, error: Exception, failures: Failures, *, generation: int) -> float:
        """Handle the error of a connection: return the seconds until it tries again, or end the transfer.

        ``generation`` is that of the location that was used.
        """
        if isinstance(error, RangesIgnored):
            return 0.0
        if isinstance(error, LocationExpired | FileChanged) and self._refresh is not None:
            self._renew(error, generation)
            return 0.0
        if isinstance(error, TransientError):
            return self._retry(error, failures)
        self.stop(error)
        return 0.0

    def _retry(self, error: TransientError, failures: Failures) -> float:
        count = failures.add(self._completed)
        if count >= self.options.attempts:
            self.stop(TransientError(self._gave_up(error, count), retry_after=error.retry_after))
            return 0.0
        delay = min(self.options.first_delay * 2.0 ** (count - 1), self.options.max_delay)
        delay *= 0.5 + random.random() / 2  # noqa: S311
        if error.retry_after is not None:
            delay = max(delay, min(error.retry_after, self.options.max_retry_after))
            with self._changed:
                self._resume_at = max(self._resume_at, time.monotonic() + delay)
                self._allowed, self._calm = max(1, self._allowed - 1), 0
        return delay

    def _renew(self, error: LocationExpired | FileChanged, generation: int) -> None:
        """Resolve the source again, once for all connections that need it."""
        with self._renewal:
            if generation != self._generation or self._refresh is None:
                return
            count = self._renewals.add(self._completed)
            if count > 1:
                self.stopped.wait(min(self.options.first_delay * 2.0 ** (count - 2), self.options.max_delay))
            if count >= self.options.attempts:
                self.stop(type(error)(self._gave_up(error, count)))
                return
            try:
                file = self._refresh()
            except TransientError:
                return
            except Exception as failure:
                self.stop(failure)
                return
            self._replace(file)

    def _replace(self, file: RemoteFile) -> None:
        old = self._file
        if (file.sha256, file.size, file.version) != (old.sha256, old.size, old.version):
            self.stop(FileChanged(f"{old.name} is not the file any more that the source was resolved to"))
            return
        with self._changed:
            self._file = file
            self._generation += 1

    def _gave_up(self, error: PullError, count: int) -> str:
        size = f" of {format_bytes(self.total)}" if self.total is not None else ""
        return (
            f"{self._file.name}: {error}. Gave up after {count} attempts in a row; the next pull continues at "
            f"{format_bytes(self._completed)}{size}"
        )


class RangesIgnored(TransientError):
    """A server that sends the whole file when a range is requested."""
