"""How much of the prompts a step may read while streams are running: as much as pauses them for a moment only."""

from __future__ import annotations

PAUSE = 0.25
"""Seconds that reading prompts may hold up the next token of a running stream."""
SMALLEST = 32
"""Tokens; smaller chunks are read noticeably less efficiently."""
_RECENT = 0.3


class Pace:
    """Knows how fast prompts are read here, from the steps so far."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rate = 0.0

    def allowance(self, *, streaming: bool) -> int:
        """Prompt tokens for the next step; all that fits into a batch when nobody's stream would pause."""
        if not streaming:
            return self._capacity
        return min(self._capacity, max(SMALLEST, int(self._rate * PAUSE)))

    def note(self, tokens: int, seconds: float) -> None:
        """A step decoded so many tokens; small ones say nothing about the speed of reading."""
        if tokens < SMALLEST or seconds <= 0:
            return
        rate = tokens / seconds
        self._rate = rate if self._rate == 0 else self._rate + _RECENT * (rate - self._rate)
