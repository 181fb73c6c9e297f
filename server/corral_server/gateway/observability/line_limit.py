"""Token bucket for log lines: a number of lines per second, with a burst of as many."""

from __future__ import annotations

from collections.abc import Callable


class LineLimit:
    """Call ``skipped`` before each line. ``clock`` returns seconds."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = rate
        self._refilled_at = clock()
        self._skipped = 0

    def skipped(self) -> dict[str, object] | None:
        """Return None if this line must be left out; otherwise its field with the lines left out before it, if any."""
        now = self._clock()
        self._tokens = min(self._rate, self._tokens + (now - self._refilled_at) * self._rate)
        self._refilled_at = now
        if self._tokens < 1:
            self._skipped += 1
            return None
        self._tokens -= 1
        skipped, self._skipped = self._skipped, 0
        return {"skipped": skipped} if skipped else {}
