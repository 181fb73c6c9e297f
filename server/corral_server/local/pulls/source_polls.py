"""Polls of sources that may move (``updatePolicy: Poll``): a new version is pulled while the present one serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from corral_core.base.errors import CorralError
from corral_server.pull.errors import PullCancelled


class SourcePolls:
    """One task for each polled source. A poll that fails is reported and repeated after the interval.

    ``update(uri)`` pulls the version that a source has now; ``failed(uri, reason, seconds)`` reports a failure.
    """

    def __init__(self, update: Callable[[str], Awaitable[None]], failed: Callable[[str, str, float], None]) -> None:
        self._update = update
        self._failed = failed
        self._tasks: dict[str, tuple[float, asyncio.Task[None]]] = {}

    def set(self, intervals: Mapping[str, float], *, at_once: bool = False) -> None:
        """Poll these sources after each of their intervals in seconds, and no others any more.

        ``at_once``: new ones are polled now as well.
        """
        for uri, (interval, task) in list(self._tasks.items()):
            if intervals.get(uri) != interval:
                task.cancel()
                del self._tasks[uri]
        for uri, interval in intervals.items():
            if uri not in self._tasks:
                task = asyncio.create_task(self._poll(uri, interval, at_once=at_once), name=f"poll {uri[:100]}")
                self._tasks[uri] = (interval, task)

    async def close(self) -> None:
        """End all polls."""
        tasks = [task for _, task in self._tasks.values()]
        self.set({})
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self, uri: str, interval: float, *, at_once: bool) -> None:
        while True:
            if not at_once:
                await asyncio.sleep(interval)
            at_once = False
            try:
                await self._update(uri)
            except PullCancelled:
                return
            except Exception as error:  # of any kind: the present version serves, and the next poll comes
                reason = str(error) if isinstance(error, CorralError) else f"the poll failed: {error!r}"
                self._failed(uri, reason, interval)
