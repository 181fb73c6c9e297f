"""When a refused client had better come again: as long as the line before it takes at the pace observed lately.

The pace is measured only while somebody waits, once a second over a window; what was seen last is remembered. A model
that nobody has seen finish anything, because it still loads, is judged by all models together.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping

from corral_server.gateway.queue import Queue

INTERVAL = 1.0
WINDOW = 30
"""Intervals over which the pace is measured."""
LONGEST = 60
"""Seconds: beyond them a guess is worth little."""
UNKNOWN = 5
"""Seconds, when nothing has been seen to finish at all."""
_ALL = ""
"""The key of all models together; no Model has it."""

Counts = Mapping[str, int]


class Pace:
    """``waiting`` is to be called when a request waits."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._samples: deque[tuple[float, Counts]] = deque(maxlen=WINDOW + 1)
        self._rates: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def waiting(self) -> None:
        if self._timer is None:
            self._samples.clear()
            self._look()

    def retry_after(self, key: str) -> int:
        """Whole seconds, from 1 to ``LONGEST``."""
        self._measure()
        rate, line = self._rates.get(key, 0.0), self._queue.waiting_for(key)
        if not rate:
            rate, line = self._rates.get(_ALL, 0.0), self._queue.waiting
        return max(1, min(LONGEST, math.ceil(line / rate))) if rate else UNKNOWN

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        self._samples.append((self._now(), self._counts()))
        self._measure()
        if self._queue.waiting:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._look)

    def _measure(self) -> None:
        """The pace from the oldest sample to now, of every model of which something has finished since."""
        if not self._samples:
            return
        (start, before), counts = self._samples[0], self._counts()
        seconds = self._now() - start
        if seconds < INTERVAL:
            return
        self._rates = {key: rate for key, rate in self._rates.items() if key in counts}
        for key, count in counts.items():
            ended = count - before.get(key, 0)
            if ended > 0:
                self._rates[key] = ended / seconds

    def _counts(self) -> Counts:
        counts = {key: line.ended for key, line in self._queue.lines()}
        return {**counts, _ALL: sum(counts.values())}

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
