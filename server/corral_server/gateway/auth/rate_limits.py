"""Rate limits of API keys, over all gateways.

- ``requestsPerMinute``, ``tokensPerMinute`` and ``tokensPerDay`` are sliding windows: a limit holds in any 60 seconds
  or 24 hours, not per calendar minute or day.
- The tokens of a request are known when it ends, so the requests that run at that moment can exceed a limit of tokens.
- The usage at the peers is as of their last report, so a limit can be exceeded by the requests that arrive before the
  next one. A gateway that exits takes its part of the windows with it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from corral_server.gateway.auth.key_file import ApiKey
from corral_server.gateway.auth.token_window import TokenWindow
from corral_server.wire.errors import ApiError

MINUTE = 60.0
DAY = 86400.0
_CONCURRENT_RETRY_AFTER = 1


class RateLimitExceeded(ApiError):
    """Status 429 with Retry-After."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(429, message, retry_after=retry_after)


class PeerKeyUsage(Protocol):
    """Usage of API keys at the peers."""

    def key_usage(self, key: str) -> tuple[int, int]:
        """Return the numbers of running requests and of requests started in the last minute."""

    def key_tokens(self, key: str) -> tuple[int, int]:
        """Return the numbers of tokens of the last minute and of the last day."""


class NoPeerKeyUsage:
    """PeerKeyUsage of a gateway without peers."""

    def key_usage(self, key: str) -> tuple[int, int]:
        return 0, 0

    def key_tokens(self, key: str) -> tuple[int, int]:
        return 0, 0


class KeyUsage:
    """Usage of one key. ``recent_starts`` are the start times of the requests of the last minute."""

    __slots__ = ("day", "limited", "minute", "recent_starts", "running")

    def __init__(self) -> None:
        self.running = 0
        self.limited = False
        self.recent_starts: deque[float] = deque()
        self.minute = TokenWindow(MINUTE)
        self.day = TokenWindow(DAY)

    def expire(self, now: float) -> None:
        """Drop what is older than its window."""
        while self.recent_starts and self.recent_starts[0] <= now - MINUTE:
            self.recent_starts.popleft()
        self.minute.expire(now)
        self.day.expire(now)


class KeyRateLimiter:
    """Usage by key name, which survives a reload of the key file. ``clock`` returns seconds.

    ``on_change()`` is called when the usage of a key with a limit changes.
    """

    def __init__(self, clock: Callable[[], float], peers: PeerKeyUsage) -> None:
        self._clock = clock
        self._peers = peers
        self._usage: dict[str, KeyUsage] = {}
        self.on_change: Callable[[], None] = lambda: None

    def start(self, key: ApiKey) -> KeyUsage:
        """Count the start of a request, to be ended by ``finish``. Raises RateLimitExceeded without counting it."""
        usage = self._usage.get(key.name) or self._usage.setdefault(key.name, KeyUsage())
        usage.limited = key.limited
        if not key.limited:
            usage.running += 1
            return usage
        now = self._clock()
        usage.expire(now)
        running, recent = self._peers.key_usage(key.name)
        if key.concurrent is not None and usage.running + running >= key.concurrent:
            raise RateLimitExceeded(
                f"this API key allows {key.concurrent} concurrent requests", retry_after=_CONCURRENT_RETRY_AFTER
            )
        self._check_tokens(key, usage, now)
        if key.requests_per_minute is not None:
            over = len(usage.recent_starts) + recent - key.requests_per_minute
            if over >= 0:
                wait = _retry_after(usage, over, per_minute=key.requests_per_minute, now=now)
                raise RateLimitExceeded(
                    f"this API key allows {key.requests_per_minute} requests per minute", retry_after=wait
                )
            usage.recent_starts.append(now)
        usage.running += 1
        self.on_change()
        return usage

    def finish(self, usage: KeyUsage, key: ApiKey) -> None:
        """Count the end of a request."""
        usage.running -= 1
        if key.limited:
            self.on_change()

    def add_tokens(self, name: str, tokens: int) -> None:
        """Count the tokens of a request that has ended."""
        usage = self._usage.get(name)
        if usage is not None and tokens:
            now = self._clock()
            usage.minute.add(tokens, now)
            usage.day.add(tokens, now)
            if usage.limited:
                self.on_change()

    def usage(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return the running and recent requests of these keys, zeros omitted."""
        reported = {name: (usage.running, len(usage.recent_starts)) for name, usage in self._current(names)}
        return {name: numbers for name, numbers in reported.items() if any(numbers)}

    def tokens(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return the tokens of these keys in the last minute and day, zeros omitted."""
        reported = {name: (usage.minute.total, usage.day.total) for name, usage in self._current(names)}
        return {name: numbers for name, numbers in reported.items() if any(numbers)}

    def retain(self, names: frozenset[str]) -> None:
        """Drop the usage of all other keys, except while requests of them are running."""
        self._usage = {name: usage for name, usage in self._usage.items() if name in names or usage.running}

    def _current(self, names: Iterable[str]) -> Iterable[tuple[str, KeyUsage]]:
        now = self._clock()
        for name in names:
            usage = self._usage.get(name)
            if usage is not None:
                usage.expire(now)
                yield name, usage

    def _check_tokens(self, key: ApiKey, usage: KeyUsage, now: float) -> None:
        at_peers = self._peers.key_tokens(key.name)
        windows = ((usage.minute, key.tokens_per_minute, "minute"), (usage.day, key.tokens_per_day, "day"))
        for (window, limit, unit), elsewhere in zip(windows, at_peers, strict=True):
            if limit is None or window.total + elsewhere < limit:
                continue
            over = window.total + elsewhere - limit + 1
            wait = window.seconds_until_fewer(over, now)
            if wait is None:  # the times at the peers are unknown; they are assumed to be evenly distributed
                wait = min(1.0, over / limit) * window.seconds
            raise RateLimitExceeded(
                f"this API key allows {limit} tokens per {unit}", retry_after=max(1, math.ceil(wait))
            )


def _retry_after(usage: KeyUsage, over: int, *, per_minute: int, now: float) -> int:
    """Return seconds until one more request is allowed.

    The start times at the peers are unknown; they are assumed to be evenly distributed.
    """
    if over < len(usage.recent_starts):
        return max(1, math.ceil(usage.recent_starts[over] + MINUTE - now))
    return max(1, min(60, math.ceil(MINUTE * (over + 1) / per_minute)))
