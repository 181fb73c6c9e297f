"""Streams: the items of a generation on their way from the engine's thread to the coroutine that reads them.

Invariants:

- all items of a step are handed over with one wake-up of each event loop;
- a stream whose reader left is marked ``closed``, and the engine drops its generation in the next step;
- items that were not read yet count in the request's memory; when there is none left, the generation fails, because its
  client reads too slowly.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from corral_server.runner.engine.generation import GenerationResult
from corral_server.runner.llama.errors import EngineError, EngineFailed
from corral_server.runner.memory.budget import Reservation
from corral_server.runner.sampling.text import TextChunk

StreamItem = TextChunk | GenerationResult | EngineError

ITEM_BYTES = 256
"""A chunk in a queue, without the characters of its text."""
TOKEN_BYTES = 64
"""A generated token, which the generation keeps until it ends."""
LOGPROB_BYTES = 640
"""A token's logprob, until it is encoded as JSON."""
UNREAD = "the response was not read fast enough: the model's requests use all of its memory"


class GenerationStream:
    """Queue of one reader. The reading end belongs to its event loop; any thread may read ``closed``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reservation: Reservation) -> None:
        self.loop = loop
        self.closed = False
        self._reservation = reservation
        self._items: deque[StreamItem] = deque()
        self._arrival: asyncio.Future[None] | None = None
        """The reader waits for it; an ``asyncio.Event`` does the same with three times the work for each token."""

    def put(self, item: StreamItem) -> None:
        """Append an item; only in the stream's event loop."""
        if self.closed:
            return
        if self._reservation.try_grow(item_bytes(item)):
            self.closed = True
            item = EngineFailed(UNREAD)
        self._items.append(item)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def read(self) -> AsyncGenerator[TextChunk | GenerationResult, None]:
        """Yield the items up to the result. Raises the ``EngineError`` that was put."""
        while True:
            while not self._items:
                self._arrival = self.loop.create_future()
                await self._arrival
            item = self._items.popleft()
            if isinstance(item, EngineError):
                raise item
            self._reservation.shrink(item_bytes(item) - TOKEN_BYTES)
            yield item
            if isinstance(item, GenerationResult):
                return


def item_bytes(item: StreamItem) -> int:
    """Return how much memory an item takes at most."""
    if not isinstance(item, TextChunk):
        return ITEM_BYTES
    logprobs = sum(1 + len(logprob.top) for logprob in item.logprobs)
    return ITEM_BYTES + 4 * len(item.text) + LOGPROB_BYTES * logprobs


StreamItems = list[tuple[GenerationStream, StreamItem]]


class DeliveryBuffer:
    """Holds the items of a step until the next decode, which releases the GIL and lets the event loop run.

    Delivered earlier, the two threads would only wait for each other. Used by the engine's thread alone.
    """

    def __init__(self) -> None:
        self._items: StreamItems = []

    def add(self, items: StreamItems, *, more: bool) -> None:
        """Hold the items of the newest step; deliver the earlier ones, and these too unless ``more`` steps follow."""
        self.flush()
        self._items = items
        if not more:
            self.flush()

    def flush(self) -> None:
        items, self._items = self._items, []
        if items:
            deliver(items)


def deliver(items: StreamItems) -> None:
    """Put items into their streams from the engine's thread: one wake-up for each event loop, normally the only one."""
    by_loop: dict[asyncio.AbstractEventLoop, StreamItems] = {}
    for stream, item in items:
        by_loop.setdefault(stream.loop, []).append((stream, item))
    for loop, share in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_items, share)
        except RuntimeError:  # the loop is closed, so its readers are gone
            for stream, _ in share:
                stream.closed = True


def _put_items(items: Iterable[tuple[GenerationStream, StreamItem]]) -> None:
    for stream, item in items:
        stream.put(item)
