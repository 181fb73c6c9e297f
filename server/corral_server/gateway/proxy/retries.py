"""Limits of how often and how long a request is sent again before a runner begins it."""

from __future__ import annotations

import time

from corral_server.gateway.upstream.connection import NotBegun, Unreachable


class RetryBudget:
    """One request's failures, none of which the request itself caused.

    A machine that vanished stays listed until the cluster notices, most of a minute later; until then requests are
    queued as for a runner that loads, for ``unreachable_timeout`` seconds. A runner whose connections are established
    and then reset has another fault: such a request is sent ``attempts`` times.
    """

    def __init__(self, attempts: int, unreachable_timeout: float) -> None:
        self._attempts = attempts
        self._unreachable_timeout = unreachable_timeout
        self._resets = 0
        self._unreachable_since: float | None = None

    def exhausted(self, error: NotBegun) -> bool:
        """Count the failure; return whether the request is not sent again."""
        if not isinstance(error, Unreachable):
            self._resets += 1
            return self._resets >= self._attempts
        now = time.monotonic()
        if self._unreachable_since is None:
            self._unreachable_since = now
        return now - self._unreachable_since >= self._unreachable_timeout
