"""Fast streams are read in large pieces: after each piece such a stream rests for a moment before the next is read.

Every piece is written as soon as it is read; what comes during the rest waits in the kernel and is then read and
written as one. A stream is fast while its pieces follow each other within a few milliseconds. Models are seldom that
fast for one client, and no person sees the difference; what it saves is reads, writes, packets and wake-ups of clients
while many streams run. All streams share one timer, so that they are read together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

REST = 0.002
"""Seconds."""
FAST = 2 * REST
"""Seconds between two pieces: more than a rest, or a stream would be slow after it."""


class Clock(Protocol):
    """What of the event loop is used."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class Stream(Protocol):
    """What of a connection to a runner is used; ``wrote_at`` is kept here."""

    wrote_at: float

    @property
    def loop(self) -> Clock: ...

    def rest(self) -> None: ...

    def go_on(self) -> None: ...


class Pacing:
    """``wrote`` is to be called after each piece of a stream that is not its last."""

    __slots__ = ("_resting",)

    def __init__(self) -> None:
        self._resting: list[Stream] = []

    def wrote(self, stream: Stream) -> None:
        now = stream.loop.time()
        if now - stream.wrote_at < FAST:
            stream.rest()
            if not self._resting:
                stream.loop.call_later(REST, self._go_on)
            self._resting.append(stream)
        stream.wrote_at = now

    def _go_on(self) -> None:
        resting, self._resting = self._resting, []
        for stream in resting:
            stream.go_on()
