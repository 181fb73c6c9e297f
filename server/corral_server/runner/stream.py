"""The way of a generation's items from the engine's thread to the coroutine that waits for them.

What always holds: the engine hands over all the items of a step with one wake-up of each event loop; a stream whose
reader has gone is marked ``closed`` and is dropped by the engine at its next step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from corral_server.runner.generation import EngineError, Finish, Piece

Item = Piece | Finish | EngineError


class Stream:
    """The reading end belongs to the event loop that made it, ``closed`` may be read by any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed = False
        self._items: deque[Item] = deque()
        self._arrived = asyncio.Event()

    def put(self, item: Item) -> None:
        """Only in the stream's event loop."""
        self._items.append(item)
        self._arrived.set()

    async def read(self) -> AsyncGenerator[Piece | Finish, None]:
        """Ends after the Finish; raises the EngineError that was put."""
        while True:
            while not self._items:
                self._arrived.clear()
                await self._arrived.wait()
            item = self._items.popleft()
            if isinstance(item, EngineError):
                raise item
            yield item
            if isinstance(item, Finish):
                return


Delivery = list[tuple[Stream, Item]]


def deliver(items: Delivery) -> None:
    """From the engine's thread: one wake-up for each loop, normally the only one."""
    by_loop: dict[asyncio.AbstractEventLoop, Delivery] = {}
    for stream, item in items:
        by_loop.setdefault(stream.loop, []).append((stream, item))
    for loop, share in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, share)
        except RuntimeError:  # the loop is closed, and its readers with it
            for stream, _ in share:
                stream.closed = True


def _put_all(items: Iterable[tuple[Stream, Item]]) -> None:
    for stream, item in items:
        stream.put(item)
