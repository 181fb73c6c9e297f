"""When an instance may be unloaded: Ollama's keep_alive as a value, with every moment passed in.

What always holds: keep_alive is sticky (a request without one changes nothing), counts from the end of the last
request, never runs out while one is active, and stays within the Model's bounds whatever a request brings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from corral_core.activity import FOREVER
from corral_core.durations import keep_alive_from_request
from corral_core.errors import InvalidDuration
from corral_server.runner.requests import Fields
from corral_server.wire.errors import ApiError


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most seconds that a request may ask for; ``FOREVER`` is a number like others."""

    minimum: float = 0.0
    maximum: float = FOREVER

    def clamp(self, seconds: float) -> float:
        return min(max(seconds, self.minimum), self.maximum)


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """``seconds`` to stay after the last use; ``idle_since`` is None before the model is loaded.

    ``due`` is set by an unload request: the model is due from then on even if it was used a moment before.
    """

    seconds: float
    bounds: Bounds = Bounds()
    active: int = 0
    idle_since: float | None = None
    last_end: float | None = None
    due: float | None = None

    def loaded(self, now: float) -> KeepAlive:
        return replace(self, idle_since=now)

    def begun(self, keep_alive: float | None) -> KeepAlive:
        """A request starts; its keep_alive, when it brings one, is the instance's from now on."""
        seconds = self.seconds if keep_alive is None else self.bounds.clamp(keep_alive)
        return replace(self, seconds=seconds, active=self.active + 1, due=None)

    def ended(self, now: float) -> KeepAlive:
        """A request ended, however it did."""
        return replace(self, active=self.active - 1, idle_since=now, last_end=now)

    def unloading(self, now: float) -> KeepAlive:
        """``keep_alive: 0`` without a prompt: as soon as possible, which the Model's minimum may hold back."""
        seconds = self.bounds.clamp(0.0)
        return replace(self, seconds=seconds, due=now if seconds == 0 else None)

    @property
    def expires_at(self) -> float | None:
        """Unix seconds; None while a request is active, before the model is loaded, and when it stays for ever."""
        if self.active or self.idle_since is None or self.seconds == FOREVER:
            return None
        return self.due if self.due is not None else self.idle_since + self.seconds


def keep_alive_of(fields: Fields) -> float | None:
    """What a native request brings, in seconds; None when it brings nothing. Raises ApiError 400 with Go's texts."""
    try:
        return keep_alive_from_request(fields.raw("keep_alive"))
    except InvalidDuration as error:
        raise ApiError(400, str(error)) from error
