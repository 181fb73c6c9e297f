"""Locks for file systems without ``flock``: a file that its holder touches, and that others take over when it stops.

- The file is created exclusively, which is atomic on NFS too. It holds a random token of its holder.
- A lease is stale when the file has not changed for ``EXPIRY`` seconds of the observer's own clock, so the clocks of
  two machines are never compared.
- A stale lease is taken over by rename. Of several takers the last rename holds it: each looks again after ``SETTLE``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

PERIOD: Final = 10.0
"""Seconds between two touches."""
EXPIRY: Final = 60.0
SETTLE: Final = 1.0
_TOKEN_LIMIT: Final = 64


class Lease:
    """Lease of one path. An instance is used by one thread."""

    def __init__(self, path: Path, *, settle: float = SETTLE, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._settle = settle
        self._clock = clock
        self._token = secrets.token_hex(16).encode()
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0
        self._released = threading.Event()
        self._held = False

    def try_acquire(self) -> bool:
        """Acquire the lease if it is free or stale and return whether this succeeded. Raises OSError."""
        try:
            self._create(self._path)
        except FileExistsError:
            if not self._stale() or not self._take_over():
                return False
        self._held = True
        self._released.clear()
        threading.Thread(target=self._keep, name="lease", daemon=True).start()
        return True

    def release(self) -> None:
        """Release the lease. Does nothing if it is not held."""
        self._released.set()
        if self._held and self._owned():
            self._path.unlink(missing_ok=True)
        self._held = False

    def _create(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o664)
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(self._token)

    def _stale(self) -> bool:
        now = self._clock()
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return False
        seen = (status.st_ino, status.st_mtime_ns, self._content())
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return now - self._seen_at >= EXPIRY

    def _take_over(self) -> bool:
        mine = self._path.with_name(f"{self._path.name}.{self._token.decode()}")
        self._create(mine)
        mine.replace(self._path)
        time.sleep(self._settle)
        return self._owned()

    def _owned(self) -> bool:
        return self._content() == self._token

    def _content(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(_TOKEN_LIMIT)
        except OSError:
            return b""

    def _keep(self) -> None:
        while not self._released.wait(PERIOD):
            with contextlib.suppress(OSError):
                if self._owned():
                    os.utime(self._path)
