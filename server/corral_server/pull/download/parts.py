"""Parts of a file: ranges that connections read, handed out from the front.

- Parts are handed out in order, so that the digest can follow closely behind the connections.
- The size of a part follows the speed of its connection: a request pays off, and a slow one does not keep much.
- When nothing is left to hand out, the largest rest is split: no connection idles while another is slow.
- A rest that is too small to split is taken over from a connection that is far slower than an idle one, at most
  ``MAX_TAKEN`` times: each time costs a request, and a server may be slow for all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.download.ranges import RangeSet

TAKE_AFTER: Final = 5.0
"""Seconds in which a connection shows its speed, before its part may be taken over."""
SLOWER: Final = 8.0
"""A connection is far slower than another if the other one has this multiple of its speed."""
MAX_TAKEN: Final = 3
_ASSUMED: Final = 100_000.0
"""Bytes/s of a connection that has not shown its speed yet."""


@dataclass(eq=False, slots=True)
class Part:
    """Range of one connection: read up to ``position``; ``end`` is None up to the end of a file of unknown size.

    ``end`` becomes smaller when the part is split. ``active`` is False after the part was taken away from its
    connection, which must not write any more; it changes, and data is written, under ``lock``. It began at ``first`` at
    the time ``started`` and was taken over ``taken`` times.
    """

    position: int
    end: int | None
    taken: int = 0
    active: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)
    first: int = 0
    started: float = 0.0

    def left(self, most: int) -> int:
        """Return the number of bytes to read next, at most ``most``."""
        return most if self.end is None else min(most, self.end - self.position)


class Parts:
    """Hands out the parts of a file that ``done`` lacks; the caller holds a lock around each call."""

    def __init__(
        self,
        done: RangeSet,
        *,
        total: int | None,
        options: DownloadOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._clock = clock
        self._done = done
        self._missing = [] if total is None else done.missing(total)
        self._active: list[Part] = []
        self.total = total

    def set_total(self, total: int) -> None:
        """Set the size of the file, which was not known: the part that is read is cut, the rest is handed out."""
        self.total = total
        for part in self._active:
            part.end = min(total, part.position + self._options.first_part)
            self._missing = [(part.end, total)] if part.end < total else []

    def take(self, speed: float) -> Part | None:
        """Return a part for a connection of ``speed`` bytes/s (0 if not known); None if there is none now."""
        part = self._next(speed) or self._split() or self._take_over(speed)
        if part is not None:
            part.first, part.started = part.position, self._clock()
            self._active.append(part)
        return part

    def take_rest(self) -> Part | None:
        """Return a part from the first missing byte to the end, for a server without ranges; None if one is active."""
        if self._active:
            return None
        part = Part(self._missing[0][0] if self._missing else self._done.front, self.total)
        self._missing.clear()
        self._active.append(part)
        return part

    def give_back(self, part: Part) -> None:
        """Take a part back; what it did not read is handed out again. A part that was given back is ignored."""
        if part not in self._active:
            return
        self._active.remove(part)
        if part.end is not None and part.position < part.end:
            self._missing.append((part.position, part.end))
            self._missing.sort()

    def _next(self, speed: float) -> Part | None:
        if self.total is None:
            return None if self._active else Part(self._done.front, None)
        if not self._missing:
            return None
        start, end = self._missing.pop(0)
        cut = min(end, start + self._size(speed, self.total))
        if end - cut < self._options.min_part // 2:
            cut = end
        if cut < end:
            self._missing.insert(0, (cut, end))
        return Part(start, cut)

    def _size(self, speed: float, total: int) -> int:
        options = self._options
        wanted = int(speed * options.part_seconds) if speed else options.first_part
        share = total // (2 * options.parallel)
        return max(options.min_part, min(wanted, options.max_part, max(share, options.min_part)))

    def _split(self) -> Part | None:
        """Split the part with the largest rest."""
        ends = [(part.end - part.position, part) for part in self._active if part.end is not None]
        rest, part = max(ends, key=lambda item: item[0], default=(0, None))
        if part is None or part.end is None or rest < self._options.min_split:
            return None
        middle = part.position + rest // 2
        new = Part(middle, part.end)
        part.end = middle
        return new

    def _take_over(self, speed: float) -> Part | None:
        """Take the slowest part from its connection, if that is far slower than ``speed`` bytes/s (0 if not known)."""
        now = self._clock()
        speeds = [
            ((part.position - part.first) / (now - part.started), part)
            for part in self._active
            if part.end is not None and part.left(1) and part.taken < MAX_TAKEN and now - part.started >= TAKE_AFTER
        ]
        slowest, part = min(speeds, key=lambda item: item[0], default=(0.0, None))
        if part is None or slowest * SLOWER >= (speed or _ASSUMED) or not part.lock.acquire(blocking=False):
            return None  # with its lock, it writes to the disk just now
        part.active = False
        part.lock.release()
        self._active.remove(part)
        return Part(part.position, part.end, part.taken + 1)
