"""How often each key has been used lately, and how many of its requests run: here, and at the other gateways.

``requestsPerMinute`` holds for every minute there is, not for minutes by the clock: at most so many in any 60 seconds.
What others have seen is known as of their last message, so a bound can be exceeded by what comes before the next one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from corral_server.gateway.keys.file import Key
from corral_server.wire.errors import ApiError

MINUTE = 60.0
_SOON = 1


class TooMany(ApiError):
    """429, with when to come again."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(429, message, retry_after=retry_after)


class Elsewhere(Protocol):
    """What the other gateways have seen of a key."""

    def use(self, key: str) -> tuple[int, int]:
        """How many of its requests run there, and how many began in the last minute."""


class Nowhere:
    """There is no other gateway."""

    def use(self, key: str) -> tuple[int, int]:
        return 0, 0


class Use:
    """One key's. ``taken`` are the times of the last minute's requests."""

    __slots__ = ("running", "taken")

    def __init__(self) -> None:
        self.running = 0
        self.taken: deque[float] = deque()

    def forget(self, now: float) -> None:
        """What is longer ago than a minute."""
        while self.taken and self.taken[0] <= now - MINUTE:
            self.taken.popleft()


class Rates:
    """Kept by name of key, so that a file read anew forgets nothing. ``clock`` gives seconds.

    ``changed()`` is called when a key with a bound is used more, or less.
    """

    def __init__(self, clock: Callable[[], float], elsewhere: Elsewhere) -> None:
        self._clock = clock
        self._elsewhere = elsewhere
        self._uses: dict[str, Use] = {}
        self.changed: Callable[[], None] = lambda: None

    def take(self, key: Key) -> Use:
        """One request begins; ``end`` it. Raises TooMany, and counts nothing then."""
        use = self._uses.get(key.name) or self._uses.setdefault(key.name, Use())
        if not key.bounded:
            use.running += 1
            return use
        running, lately = self._elsewhere.use(key.name)
        if key.concurrent is not None and use.running + running >= key.concurrent:
            raise TooMany(f"this API key may have {key.concurrent} requests at a time", retry_after=_SOON)
        if key.per_minute is not None:
            now = self._clock()
            use.forget(now)
            over = len(use.taken) + lately - key.per_minute
            if over >= 0:
                wait = _wait(use, over, per_minute=key.per_minute, now=now)
                raise TooMany(f"this API key may make {key.per_minute} requests a minute", retry_after=wait)
            use.taken.append(now)
        use.running += 1
        self.changed()
        return use

    def end(self, use: Use, key: Key, *, counts: bool = True) -> None:
        """The request has ended, or was not made after all: then it does not count."""
        use.running -= 1
        if not counts and key.per_minute is not None:
            use.taken.pop()
        if key.bounded:
            self.changed()

    def levels(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """What these keys use now, those apart that use nothing."""
        levels = {}
        for name in names:
            use = self._uses.get(name)
            if use is not None:
                use.forget(self._clock())
                if use.running or use.taken:
                    levels[name] = (use.running, len(use.taken))
        return levels

    def keep(self, names: frozenset[str]) -> None:
        """Forgets keys that are no more, unless requests of theirs still run."""
        self._uses = {name: use for name, use in self._uses.items() if name in names or use.running}


def _wait(use: Use, over: int, *, per_minute: int, now: float) -> int:
    """Seconds until one more may come. When those of others leave the minute is not known: as their mean would."""
    if over < len(use.taken):
        return max(1, math.ceil(use.taken[over] + MINUTE - now))
    return max(1, min(60, math.ceil(MINUTE * (over + 1) / per_minute)))
