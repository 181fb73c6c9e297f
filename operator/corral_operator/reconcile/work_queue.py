"""Work queue of Model keys: de-duplicated, with delays and rate-limited retries, after client-go's workqueue.

Invariants:
- A key is processed by one worker at a time.
- A key added while it is processed is returned once more after ``done``, so no change is lost.
- A delayed key that is added again keeps the earlier of the two times.
- Urgent keys are returned before the others, but of ``_URGENT_RUN`` keys in a row at least one is the oldest other key,
  so no key starves.

All methods are called on one event loop. Reference: client-go, util/workqueue.
"""

from __future__ import annotations

import asyncio
from collections import deque

from corral_core.base.metrics import Histogram

_FIRST_RETRY, _LONGEST_RETRY = 0.1, 30.0
_URGENT_RUN = 8


class WorkQueueMetrics:
    """Counts of additions and retries; seconds that keys spend in the queue and in processing."""

    def __init__(self) -> None:
        self.adds = 0
        self.retries = 0
        self.queue_seconds = Histogram()
        self.work_seconds = Histogram()


class WorkQueue:
    def __init__(self, metrics: WorkQueueMetrics | None = None) -> None:
        self._metrics = metrics or WorkQueueMetrics()
        self._added_at: dict[str, float] = {}
        self._ready: deque[str] = deque()  # may name a key twice after it became urgent; get() skips the second
        self._urgent: deque[str] = deque()
        self._urgent_keys: set[str] = set()
        self._urgent_run = 0
        self._dirty: set[str] = set()
        self._processing: dict[str, float] = {}
        self._last_progress = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._wakeup = asyncio.Event()

    @property
    def depth(self) -> int:
        """The number of keys that no worker has taken yet."""
        return sum(key not in self._processing for key in self._dirty)

    def add(self, key: str, *, urgent: bool = False) -> None:
        """Add the key, before those that are not urgent if it is. It stays urgent until a worker takes it."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        sooner = urgent and key not in self._urgent_keys
        if sooner:
            self._urgent_keys.add(key)
        if key in self._dirty:
            if sooner and key not in self._processing:
                self._urgent.append(key)
            return
        self._dirty.add(key)
        self._metrics.adds += 1
        self._added_at[key] = asyncio.get_running_loop().time()
        if key not in self._processing:
            self._enqueue(key)

    def add_after(self, key: str, delay: float) -> None:
        """Add the key after ``delay`` seconds, unless it is already due earlier."""
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if key in self._dirty or (timer is not None and timer.when() <= loop.time() + delay):
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self.add, key)

    def add_rate_limited(self, key: str) -> float:
        """Add a key that failed, with a delay that doubles with each failure; return the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._metrics.retries += 1
        delay = min(_FIRST_RETRY * 2.0 ** min(failures, 12), _LONGEST_RETRY)
        self.add_after(key, delay)
        return delay

    def forget(self, key: str) -> None:
        """Reset the retry delay of a key that succeeded."""
        self._failures.pop(key, None)

    async def get(self) -> str:
        """Wait for a key and return it; the worker must call ``done`` afterwards."""
        while (key := self._next()) is None:
            self._wakeup.clear()
            await self._wakeup.wait()
        self._dirty.discard(key)
        self._urgent_keys.discard(key)
        self._processing[key] = self._last_progress = now = asyncio.get_running_loop().time()
        self._metrics.queue_seconds.observe(now - self._added_at.pop(key, now))
        return key

    def done(self, key: str) -> None:
        started = self._processing.pop(key, None)
        if started is not None:
            self._metrics.work_seconds.observe(asyncio.get_running_loop().time() - started)
        if key in self._dirty:
            self._enqueue(key)

    def stalled(self) -> float:
        """Return for how many seconds a key has been in processing, or the queue has not moved while it has keys."""
        now = asyncio.get_running_loop().time()
        since = [*self._processing.values(), *([self._last_progress] if self.depth else [])]
        return max((now - moment for moment in since), default=0.0)

    def close(self) -> None:
        """Cancel all delayed keys."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _enqueue(self, key: str) -> None:
        if not self._ready and not self._urgent:
            self._last_progress = asyncio.get_running_loop().time()
        (self._urgent if key in self._urgent_keys else self._ready).append(key)
        self._wakeup.set()

    def _next(self) -> str | None:
        """Take the key whose turn it is, None without one."""
        other_first = self._urgent_run >= _URGENT_RUN - 1
        for line in (self._ready, self._urgent) if other_first else (self._urgent, self._ready):
            while line:
                key = line.popleft()
                if key in self._dirty and key not in self._processing:
                    self._urgent_run = self._urgent_run + 1 if line is self._urgent else 0
                    return key
        return None
