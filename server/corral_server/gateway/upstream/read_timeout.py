"""Read timeout of connections to runners. Off unless it is set: models may compute for long without sending."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from corral_server.gateway.upstream.connection import ReadTimeout, RunnerConnection


def connection_factory(read_timeout: float) -> Callable[[], RunnerConnection]:
    """Return what makes connections to runners; ``read_timeout`` is in seconds, 0 for none."""
    return functools.partial(TimedRunnerConnection, read_timeout) if read_timeout else RunnerConnection


class TimedRunnerConnection(RunnerConnection):
    """A connection that fails when its runner sends nothing for ``read_timeout`` seconds while a response is read."""

    def __init__(self, read_timeout: float) -> None:
        super().__init__()
        self._read_timeout = read_timeout
        self._last_received = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def send(self, head: bytes, body: bytes = b"") -> None:
        self._last_received = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(self._read_timeout, self._check)
        super().send(head, body)

    def data_received(self, data: bytes) -> None:
        self._last_received = self.loop.time()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def _check(self) -> None:
        self._timer = None
        if not self._busy or self.complete:
            return
        now = self.loop.time()
        deadline = (now if self._read_paused else self._last_received) + self._read_timeout
        if deadline > now:
            self._timer = self.loop.call_later(deadline - now, self._check)
        else:
            self._fail(ReadTimeout("the runner sent nothing for too long"))
