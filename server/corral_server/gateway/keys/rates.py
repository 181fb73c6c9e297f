"""How often each key has been used lately, and how many of its requests run. Each gateway counts for itself.

``requestsPerMinute`` holds for every minute there is, not for minutes by the clock: at most so many in any 60 seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from corral_server.gateway.keys.file import Key
from corral_server.wire.errors import ApiError

MINUTE = 60.0
_SOON = 1


class TooMany(ApiError):
    """429, with when to come again."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(429, message, retry_after=retry_after)


class Use:
    """One key's. ``taken`` are the times of the last minute's requests."""

    __slots__ = ("running", "taken")

    def __init__(self) -> None:
        self.running = 0
        self.taken: deque[float] = deque()


class Rates:
    """Kept by name of key, so that a file read anew forgets nothing. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._uses: dict[str, Use] = {}

    def take(self, key: Key) -> Use:
        """One request begins; ``end`` it. Raises TooMany, and counts nothing then."""
        use = self._uses.get(key.name) or self._uses.setdefault(key.name, Use())
        if key.concurrent is not None and use.running >= key.concurrent:
            raise TooMany(f"this API key may have {key.concurrent} requests at a time", retry_after=_SOON)
        if key.per_minute is not None:
            now = self._clock()
            while use.taken and use.taken[0] <= now - MINUTE:
                use.taken.popleft()
            if len(use.taken) >= key.per_minute:
                wait = math.ceil(use.taken[-key.per_minute] + MINUTE - now)
                raise TooMany(f"this API key may make {key.per_minute} requests a minute", retry_after=max(1, wait))
            use.taken.append(now)
        use.running += 1
        return use

    @staticmethod
    def end(use: Use, key: Key, *, counts: bool = True) -> None:
        """The request has ended, or was not made after all: then it does not count."""
        use.running -= 1
        if not counts and key.per_minute is not None:
            use.taken.pop()

    def keep(self, names: frozenset[str]) -> None:
        """Forgets keys that are no more, unless requests of theirs still run."""
        self._uses = {name: use for name, use in self._uses.items() if name in names or use.running}
