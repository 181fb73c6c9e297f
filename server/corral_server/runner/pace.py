"""How much of the prompts a step may read: as much as pauses running streams for a moment only, and never so much that
a step of a slow machine keeps a cancelled request or the liveness check waiting for long."""

from __future__ import annotations

PAUSE = 0.25
"""Seconds that reading prompts may hold up the next token of a running stream."""
LONGEST = 2.0
"""Seconds that a step may take when nobody's stream pauses."""
SMALLEST = 32
"""Tokens beside running streams; smaller chunks are read noticeably less efficiently."""
ALONE = 64
"""Tokens that are read together at least when nobody's stream pauses. Measured on a CPU: chunks of 64 take as long for
each token as those of 512, and chunks of 32 a fifth longer."""
FIRST = 64
"""Tokens of the first chunk, when the speed is not known yet."""
_RECENT = 0.3


class Pace:
    """Knows how fast prompts are read here, from the steps so far."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rate = 0.0

    def allowance(self, *, streaming: bool) -> int:
        """Prompt tokens for the next step."""
        if self._rate == 0:
            return min(self._capacity, FIRST)
        seconds, least = (PAUSE, SMALLEST) if streaming else (LONGEST, ALONE)
        return min(self._capacity, max(least, int(self._rate * seconds)))

    def note(self, tokens: int, seconds: float) -> None:
        """A step decoded so many tokens; small ones say nothing about the speed of reading."""
        if tokens < SMALLEST or seconds <= 0:
            return
        rate = tokens / seconds
        self._rate = rate if self._rate == 0 else self._rate + _RECENT * (rate - self._rate)
