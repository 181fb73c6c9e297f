"""Notices that a client left, at no cost for answers that come at once.

While a request waits or streams, a small task listens for the disconnect and cancels the request's own task, as
``asyncio.timeout`` does for time. It is started only after ``GRACE``: most answers are there before.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from corral_server.gateway.messages import Receive

GRACE = 0.02
"""Seconds before somebody listens. A client that leaves within them is noticed when they are over."""


class Departure:
    """``with Departure(receive):`` the body of the request was read; the block ends early when the client leaves.

    Inside the block the departure is an ``asyncio.CancelledError``; it does not get out. ``left`` tells.
    """

    __slots__ = ("_receive", "_task", "_timer", "_watcher", "left")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.left = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Departure:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(GRACE, self.watch)
        return self

    def watch(self) -> None:
        """Listens from now on."""
        self._timer.cancel()
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._listen())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if kind is asyncio.CancelledError and self.left and self._task is not None:
            return self._task.uncancel() == 0
        return False

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._task is not None:
            self._task.cancel()
