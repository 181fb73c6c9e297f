"""Ollama's keep_alive as an immutable value; the time is passed in.

Invariants:

- keep_alive is sticky: a request without one changes nothing.
- It counts from the end of the last request and does not expire while a request is active.
- It stays within the Model's ``keepAliveMin`` and ``keepAliveMax``, whatever a request asks for.

Source: ``expireRunner`` and ``sessionDuration`` in Ollama's ``server/sched.go``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from corral_core.base.durations import FOREVER


@dataclass(frozen=True, slots=True)
class KeepAliveBounds:
    """Limits of keep_alive in seconds, both inclusive; ``FOREVER`` (infinity) compares like any other number."""

    minimum: float = 0.0
    maximum: float = FOREVER

    def clamp(self, seconds: float) -> float:
        return min(max(seconds, self.minimum), self.maximum)


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """keep_alive of one loaded model. Times are seconds of a clock that is never set (``time.monotonic``).

    - ``seconds``: how long the model stays loaded after its last request.
    - ``active``: number of active requests.
    - ``idle_since``: end of the last request or of the load; None before the model is loaded.
    - ``unload_at``: time of an unload request, which takes precedence over ``idle_since + seconds``.
    """

    seconds: float
    bounds: KeepAliveBounds = KeepAliveBounds()
    active: int = 0
    idle_since: float | None = None
    last_end: float | None = None
    unload_at: float | None = None

    def model_loaded(self, now: float) -> KeepAlive:
        return replace(self, idle_since=now)

    def request_started(self, keep_alive: float | None) -> KeepAlive:
        """Count a request; its keep_alive in seconds, unless None, replaces the present one."""
        seconds = self.seconds if keep_alive is None else self.bounds.clamp(keep_alive)
        return replace(self, seconds=seconds, active=self.active + 1, unload_at=None)

    def request_ended(self, now: float) -> KeepAlive:
        """Count the end of a request, successful or not."""
        return replace(self, active=self.active - 1, idle_since=now, last_end=now)

    def unload_requested(self, now: float) -> KeepAlive:
        """Apply ``keep_alive: 0`` without a prompt: expire now, or after the Model's ``keepAliveMin``."""
        seconds = self.bounds.clamp(0.0)
        return replace(self, seconds=seconds, unload_at=now if seconds == 0 else None)

    @property
    def expires_at(self) -> float | None:
        """Time of expiry; None while a request is active, before the model is loaded, and when it never expires."""
        if self.active or self.idle_since is None or self.seconds == FOREVER:
            return None
        return self.unload_at if self.unload_at is not None else self.idle_since + self.seconds
