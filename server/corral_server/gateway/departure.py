"""Notices that a client left, and then cancels the request's own task, as ``asyncio.timeout`` does for time.

The gateway's own server says so directly. Under any other ASGI server a small task listens for the disconnect; it is
started only after ``GRACE``, because most answers are there before.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.listener import Listener
from corral_server.gateway.messages import Receive

GRACE = 0.02
"""Seconds before somebody listens. A client that leaves within them is noticed when they are over."""


class Departure(Listener):
    """``with Departure(receive, exchange):`` the body was read; the block ends early when the client leaves.

    ``exchange`` is None under a server that is not the gateway's own. Inside the block the departure is an
    ``asyncio.CancelledError``; it does not get out.
    """

    __slots__ = ("_exchange", "_gone", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive, exchange: Exchange | None) -> None:
        self._receive = receive
        self._exchange = exchange
        self._gone = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Departure:
        if self._exchange is None:
            self._task = asyncio.current_task()
            self._timer = asyncio.get_running_loop().call_later(GRACE, self._watch)
        else:
            self._task = self._exchange.task
            self._exchange.listener = self
            if self._exchange.gone:
                self.left()
            elif self._exchange.half:
                self._exchange.leave()
        return self

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._listen())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._exchange is not None:
            self._exchange.listener = None
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if kind is asyncio.CancelledError and self._gone and self._task is not None:
            return self._task.uncancel() == 0
        return False

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left()

    def left(self) -> None:
        self._gone = True
        if self._task is not None:
            self._task.cancel()
