"""Rates of downloads: a limit that several threads share, and the measured rate."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW: Final = 10.0
"""Seconds over which a rate is measured."""
_BURST: Final = 0.25
"""Seconds of the rate that may be read at once."""


class RateLimit:
    """Token bucket of ``rate`` bytes/s, None for no limit; thread-safe."""

    def __init__(self, rate: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_until = clock()

    def chunk(self, size: int) -> int:
        """Return how many of ``size`` bytes to read at once, so that several connections share the rate evenly."""
        return size if self._rate is None else max(1, min(size, int(self._rate * _BURST / 8)))

    def delay(self, count: int) -> float:
        """Take ``count`` bytes and return the seconds to wait before more are read."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - _BURST) + count / self._rate
            return max(0.0, self._paid_until - now)


class RateMeter:
    """Rate of a growing number over the last ``WINDOW`` seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, value: int) -> float:
        """Add a sample and return the rate per second."""
        now = self._clock()
        self._samples.append((now, value))
        while now - self._samples[0][0] > WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        started, first = self._samples[0]
        return max(0.0, (value - first) / (now - started)) if now > started else 0.0
