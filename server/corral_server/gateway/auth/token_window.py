"""Number of tokens in a sliding window, in parts of the window instead of one entry for each request."""

from __future__ import annotations

from collections import deque

_PARTS = 60


class TokenWindow:
    """Tokens of the last ``seconds``. They leave the window in steps of a sixtieth of it. Times are in seconds."""

    __slots__ = ("_parts", "_width", "seconds", "total")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.total = 0
        self._width = seconds / _PARTS
        self._parts: deque[tuple[int, int]] = deque()

    def add(self, tokens: int, now: float) -> None:
        self.expire(now)
        number = int(now / self._width)
        self.total += tokens
        if self._parts and self._parts[-1][0] == number:
            tokens += self._parts.pop()[1]
        self._parts.append((number, tokens))

    def expire(self, now: float) -> None:
        """Drop the parts that have left the window."""
        first = int(now / self._width) - _PARTS
        while self._parts and self._parts[0][0] <= first:
            self.total -= self._parts.popleft()[1]

    def seconds_until_fewer(self, tokens: int, now: float) -> float | None:
        """Return the seconds until ``tokens`` have left the window; None if it does not have that many."""
        for number, part in self._parts:
            tokens -= part
            if tokens <= 0:
                return (number + 1 + _PARTS) * self._width - now
        return None
