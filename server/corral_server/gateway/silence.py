"""A bound on how long a runner may send nothing. Off unless it is set: models think long."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from corral_server.gateway.upstream import Connection, Silent


def connections(silence: float) -> Callable[[], Connection]:
    """What makes connections to runners; ``silence`` in seconds, 0 for no bound and no cost."""
    return functools.partial(WatchedConnection, silence) if silence else Connection


class WatchedConnection(Connection):
    """One whose runner may be silent for ``silence`` seconds at most while it is asked something and listened to."""

    def __init__(self, silence: float) -> None:
        super().__init__()
        self._silence = silence
        self._heard_at = 0.0
        self._watch: asyncio.TimerHandle | None = None

    def send(self, data: list[bytes]) -> None:
        self._heard_at = self.loop.time()
        if self._watch is None:
            self._watch = self.loop.call_later(self._silence, self._look)
        super().send(data)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)

    def _look(self) -> None:
        self._watch = None
        if not self._busy or self.complete:
            return
        now = self.loop.time()
        due = (now if self._paused else self._heard_at) + self._silence
        if due > now:
            self._watch = self.loop.call_later(due - now, self._look)
        else:
            self._fail(Silent("the runner sent nothing for too long"))
