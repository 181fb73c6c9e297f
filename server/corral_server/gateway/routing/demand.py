"""What the gateway says about its waiting requests, not more often than useful.

The first request that waits and the last one that leaves are said at once, because a model is woken by the one and may
go to sleep by the other. Changes between them are said at most once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL = 1.0
"""Seconds between two statements about a line that stays non-empty."""

Demand = Callable[[str, int, "float | None"], None]
Waiting = Callable[[str], "tuple[int, float | None]"]


class Statements:
    """Keeps what was said last for each model; ``waiting(key)`` is asked for the level at the moment of saying."""

    def __init__(self, demand: Demand, waiting: Waiting) -> None:
        self._demand = demand
        self._waiting = waiting
        self._said: dict[str, tuple[int, float | None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, key: str) -> bool:
        """Whether the last that was said is that somebody waits."""
        return key in self._said

    def note(self, key: str) -> None:
        """To be called after every change of this line."""
        level = self._waiting(key)
        if level[0] == 0 or key not in self._said:
            self._say(key, level)
        elif level != self._said[key] and key not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(INTERVAL, self._later, key)

    def close(self) -> None:
        """Withdraws everything."""
        for key in tuple(self._said):
            self._say(key, (0, None))

    def _later(self, key: str) -> None:
        del self._timers[key]
        level = self._waiting(key)
        if level != self._said.get(key):
            self._say(key, level)

    def _say(self, key: str, level: tuple[int, float | None]) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if level[0]:
            self._said[key] = level
        elif self._said.pop(key, None) is None:
            return
        self._demand(key, level[0], level[1])
