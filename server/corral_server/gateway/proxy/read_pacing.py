"""Read pacing of fast streams: after each piece, such a stream is not read for a moment.

Every piece is written as soon as it is read. What arrives during the pause stays in the kernel and is then read and
written as one piece. A stream is fast while its pieces follow each other within a few milliseconds. Models are seldom
that fast for one client, and no person sees the difference. It saves reads, writes, packets and client wake-ups while
many streams run. All streams share one timer, so that they are read together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

PAUSE = 0.002
"""Seconds."""
FAST_INTERVAL = 2 * PAUSE
"""Seconds between two pieces of a fast stream: more than a pause, or a stream would count as slow after it."""


class Clock(Protocol):
    """The part of the event loop that is used."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class PacedStream(Protocol):
    """The part of a runner connection that is used; ``last_write`` is kept here for it."""

    last_write: float

    @property
    def loop(self) -> Clock: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class ReadPacing:
    """Call ``piece_written`` after each piece of a stream that is not its last."""

    __slots__ = ("_paused",)

    def __init__(self) -> None:
        self._paused: list[PacedStream] = []

    def piece_written(self, stream: PacedStream) -> None:
        now = stream.loop.time()
        if now - stream.last_write < FAST_INTERVAL:
            stream.pause_reading()
            if not self._paused:
                stream.loop.call_later(PAUSE, self._resume)
            self._paused.append(stream)
        stream.last_write = now

    def _resume(self) -> None:
        paused, self._paused = self._paused, []
        for stream in paused:
            stream.resume_reading()
