"""Timeouts of a client connection: one lazy timer for the connection instead of one for each request.

The timer inspects the connection from time to time instead of firing exactly, so a timeout may be exceeded by as much
as the shortest of the limits. A request that arrives and is read in time costs nothing.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Final, Protocol

from corral_server.gateway.http_server.flow_control import FlowControl
from corral_server.gateway.http_server.limits import MIN_BODY_RATE, Limits


class Phase(enum.Enum):
    """What the connection waits for: the next request, the rest of a head or body, the application (``BUSY``), the
    client to read (``WRITE``), or the peer to close after the last response (``CLOSING``).
    """

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    BUSY = "busy"
    WRITE = "write"
    CLOSING = "closing"


_MIN_DELAY: Final = 0.05


class MonitoredConnection(Protocol):
    """``last_received`` is the event loop's time of the last byte or of the end of the last response."""

    flow: FlowControl
    last_received: float

    @property
    def phase(self) -> Phase:
        """Never ``WRITE``; ``flow.write_paused`` tells that."""

    def timed_out(self, phase: Phase) -> None:
        """The client was too slow in this phase."""


class ClientTimeouts:
    """Call ``part_received`` for each piece of an incomplete request; ``stop`` ends the timer."""

    __slots__ = (
        "_connection",
        "_first_size",
        "_limits",
        "_loop",
        "_part",
        "_phase",
        "_received",
        "_shortest",
        "_since",
        "_timer",
    )

    def __init__(self, connection: MonitoredConnection, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._limits = limits
        self._loop = loop
        self._phase = Phase.IDLE
        self._part: object = None
        self._since = 0.0
        self._received = self._first_size = 0
        self._shortest = min(limits.head_timeout, limits.body_timeout, limits.idle_timeout, limits.write_timeout)
        self._timer = loop.call_later(self._shortest, self._check)

    def stop(self) -> None:
        self._part = None
        self._timer.cancel()

    def part_received(self, request: object, phase: Phase, size: int) -> int:
        """Note ``size`` more bytes of this request's incomplete head or body.

        Returns the bytes that arrived after the first of these calls; with the first ones others may have come.
        """
        if phase is not self._phase or request is not self._part:
            self._part, self._phase, self._since, self._received = request, phase, self._loop.time(), 0
            self._first_size = size
        self._received += size
        return self._received - self._first_size

    def _check(self) -> None:
        now = self._loop.time()
        phase = self._connection.phase
        write_paused = self._connection.flow.write_paused
        deadline = self._deadline(Phase.WRITE if write_paused else phase, now)
        if deadline <= now:
            self._connection.timed_out(Phase.WRITE if write_paused else phase)
            deadline = now + self._shortest
        self._timer = self._loop.call_later(max(_MIN_DELAY, min(deadline - now, self._shortest)), self._check)

    def _deadline(self, phase: Phase, now: float) -> float:
        """The time at which the client is too slow if nothing arrives until then."""
        limits = self._limits
        if phase is Phase.WRITE:
            return self._connection.flow.write_paused_at + limits.write_timeout
        if phase is Phase.CLOSING:
            if phase is not self._phase:
                self._phase, self._since = phase, now
            return self._since + limits.write_timeout
        if phase is Phase.HEAD:
            return self._since + limits.head_timeout
        if phase is Phase.BODY:
            silent = self._connection.last_received + limits.body_timeout
            return min(silent, self._since + limits.body_timeout + self._received / MIN_BODY_RATE)
        return self._connection.last_received + limits.idle_timeout if phase is Phase.IDLE else now + self._shortest
