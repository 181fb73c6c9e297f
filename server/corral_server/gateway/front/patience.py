"""How long a connection waits for its client, by one lazy timer for the connection, not one for each request.

The timer looks at the connection now and then instead of timing exactly, so that a limit may be overrun by as much as
the shortest of them; nothing is to be done for a request that comes and is read in time.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from corral_server.gateway.front.limits import SLOWEST_BODY, Limits


class Watched(Protocol):
    """What of a connection tells whether its client is late."""

    choked: asyncio.Future[None] | None
    heard_at: float

    @property
    def stage(self) -> str:
        """``idle``: no request; ``head``, ``body``: a part of it is here; ``busy``: the client waits for us;
        ``closing``: nothing more is read or written, but what was written has perhaps not left.
        """

    def late(self, stage: str) -> None:
        """The client has been too slow."""


class Patience:
    """``began`` is to be called with what has come of a request that is not complete. ``stop`` ends it."""

    __slots__ = (
        "_first",
        "_limits",
        "_loop",
        "_part",
        "_received",
        "_shortest",
        "_since",
        "_stage",
        "_timer",
        "_watched",
        "choked_at",
    )

    def __init__(self, watched: Watched, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._watched = watched
        self._limits = limits
        self._loop = loop
        self._stage = "idle"
        self._part: object = None
        self._since = 0.0
        self._received = self._first = 0
        self.choked_at = 0.0
        self._shortest = min(limits.head_timeout, limits.body_timeout, limits.idle_timeout, limits.write_timeout)
        self._timer = loop.call_later(self._shortest, self._look)

    def stop(self) -> None:
        self._part = None
        self._timer.cancel()

    def began(self, request: object, stage: str, size: int) -> int:
        """``size`` more bytes of this request's head or body came, and it is not at its end.

        Gives how many came since the first of these calls, with whose bytes others may have come.
        """
        if stage != self._stage or request is not self._part:
            self._part, self._stage, self._since, self._received = request, stage, self._loop.time(), 0
            self._first = size
        self._received += size
        return self._received - self._first

    def _look(self) -> None:
        now = self._loop.time()
        stage = self._watched.stage
        due = self._due(stage, now)
        if due <= now:
            self._watched.late("write" if self._watched.choked is not None else stage)
            due = now + self._shortest
        self._timer = self._loop.call_later(max(0.05, min(due - now, self._shortest)), self._look)

    def _due(self, stage: str, now: float) -> float:
        """When the client will be late if nothing comes until then."""
        limits = self._limits
        if self._watched.choked is not None:
            return self.choked_at + limits.write_timeout
        if stage == "closing":
            if stage != self._stage:
                self._stage, self._since = stage, now
            return self._since + limits.write_timeout
        if stage == "head":
            return self._since + limits.head_timeout
        if stage == "body":
            silent = self._watched.heard_at + limits.body_timeout
            return min(silent, self._since + limits.body_timeout + self._received / SLOWEST_BODY)
        return self._watched.heard_at + limits.idle_timeout if stage == "idle" else now + self._shortest
