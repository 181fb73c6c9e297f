"""Detection of changed files by inode, modification time and size, for files that are reloaded without a restart.

Polling on use needs no thread and no task: a file matters only when a request or a handshake arrives. A Secret's volume
replaces files by renaming a symlink, which ``stat`` follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

CHECK_INTERVAL = 1.0
"""Seconds between two checks."""

_State = tuple[tuple[int, int, int], ...]


class FileChanges:
    """State of a set of files since the last check. The constructor raises OSError if a file is missing."""

    def __init__(self, paths: Sequence[Path], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = tuple(paths)
        self._clock = clock
        self._checked_at = clock()
        self._state = self._stat()

    def changed(self) -> bool:
        """Return whether a file has changed since the last change that was returned.

        Checks at most once per ``CHECK_INTERVAL``. Raises OSError if a file is missing.
        """
        now = self._clock()
        if now - self._checked_at < CHECK_INTERVAL:
            return False
        self._checked_at = now
        state = self._stat()
        if state == self._state:
            return False
        self._state = state
        return True

    def _stat(self) -> _State:
        states = [path.stat() for path in self._paths]
        return tuple((state.st_ino, state.st_mtime_ns, state.st_size) for state in states)
