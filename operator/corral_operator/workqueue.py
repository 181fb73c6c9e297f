"""Which Models are to be looked at, and when: a keyed queue, de-duplicated, with delays.

As in client-go: a key is handed out to one worker at a time; a key that is added while it is worked on is handed out
once more afterwards, so no change is lost and none is handled twice. A delayed key that is added again keeps the
earlier of the two times. All methods are called on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque

from corral_core.metrics import Histogram


class QueueMeasures:
    """What a queue counts: keys that became due, seconds until they were handed out, seconds of work on them."""

    def __init__(self) -> None:
        self.adds = 0
        self.retries = 0
        self.waited = Histogram()
        self.worked = Histogram()


class WorkQueue:
    def __init__(self, measures: QueueMeasures | None = None) -> None:
        self._measures = measures or QueueMeasures()
        self._due: dict[str, float] = {}
        self._ready: deque[str] = deque()
        self._dirty: set[str] = set()
        self._working: dict[str, float] = {}
        self._moved = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._wakeup = asyncio.Event()

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._ready)

    def add(self, key: str) -> None:
        """Hands the key out as soon as a worker is free."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._dirty:
            return
        self._dirty.add(key)
        self._measures.adds += 1
        self._due[key] = asyncio.get_running_loop().time()
        if key not in self._working:
            self._hand_out(key)

    def add_after(self, key: str, delay: float) -> None:
        """Hands the key out after ``delay`` seconds, or earlier when it was asked for earlier."""
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

    def retry(self, key: str) -> float:
        """Hands a key that failed out again, later each time; returns the delay in seconds (0.1 up to 30)."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._measures.retries += 1
        delay = min(0.1 * 2.0 ** min(failures, 12), 30.0)
        self.add_after(key, delay)
        return delay

    async def get(self) -> str:
        """The next key, when there is one; ``done`` must follow."""
        while not self._ready:
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working[key] = self._moved = now = asyncio.get_running_loop().time()
        self._measures.waited.observe(now - self._due.pop(key, now))
        return key

    def done(self, key: str) -> None:
        began = self._working.pop(key, None)
        if began is not None:
            self._measures.worked.observe(asyncio.get_running_loop().time() - began)
        if key in self._dirty:
            self._hand_out(key)

    def stalled(self) -> float:
        """For how long (seconds) some key has been worked on, or nobody has taken any of those that are ready."""
        now = asyncio.get_running_loop().time()
        since = [*self._working.values(), *([self._moved] if self._ready else [])]
        return max((now - moment for moment in since), default=0.0)

    def succeeded(self, key: str) -> None:
        """Forgets earlier failures of the key."""
        self._failures.pop(key, None)

    def _hand_out(self, key: str) -> None:
        if not self._ready:
            self._moved = asyncio.get_running_loop().time()
        self._ready.append(key)
        self._wakeup.set()

    def close(self) -> None:
        """Cancels what is delayed."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
