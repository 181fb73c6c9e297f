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
        self._arrival: asyncio.Future[None] | None = None
        """What the reader waits for; an Event would do the same with thrice the work for each token."""

    def put(self, item: Item) -> None:
        """Only in the stream's event loop."""
        self._items.append(item)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def read(self) -> AsyncGenerator[Piece | Finish, None]:
        """For one reader. Ends after the Finish; raises the EngineError that was put."""
        while True:
            while not self._items:
                self._arrival = self.loop.create_future()
                await self._arrival
            item = self._items.popleft()
            if isinstance(item, EngineError):
                raise item
            yield item
            if isinstance(item, Finish):
                return


Delivery = list[tuple[Stream, Item]]


class Outbox:
    """What a step made leaves as the next decode begins, which frees the interpreter for the event loop.

    Before that the two threads would only wait for each other. Used by the engine's thread alone.
    """

    def __init__(self) -> None:
        self._items: Delivery = []

    def take(self, made: Delivery, *, more: bool) -> None:
        """What the newest step made; what earlier ones made leaves now, and this too unless ``more`` steps follow."""
        self.send()
        self._items = made
        if not more:
            self.send()

    def send(self) -> None:
        items, self._items = self._items, []
        if items:
            deliver(items)


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
