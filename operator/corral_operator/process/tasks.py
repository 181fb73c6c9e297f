"""Tasks that end together, and waiting that a stop event interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskScope:
    """Tasks that are cancelled at the end of the block.

    Unlike in ``asyncio.TaskGroup``, the block ends when the first task ends or the stop event is set.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> TaskScope:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(coroutine))

    async def wait(self) -> None:
        """Wait for the stop event or for the first task that ends, and raise its error."""
        self.start(self._until_stopped())
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _until_stopped(self) -> None:
        await self._stop.wait()


async def unless_stopped(stop: asyncio.Event, coroutine: Coroutine[Any, Any, None]) -> bool:
    """Await the coroutine; return False, with the coroutine cancelled, if the stop event comes first."""
    task, stopped = asyncio.create_task(coroutine), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        for pending in (task, stopped):
            pending.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
