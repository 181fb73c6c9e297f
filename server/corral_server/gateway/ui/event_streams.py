"""The open event streams of pages: a bounded number of them, fed at most twice a second.

- Without an open stream nothing runs.
- Streams of one API key share each event, and an event is sent only if it differs from the one before.
- A stream holds one event, the newest. A client that reads too slowly skips the others.
- Making events takes at most ``SHARE`` of the event loop's time: with many Models they come less often.
- A stream ends when its key is changed, expired or deleted, and when the gateway shuts down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from corral_core.base.json_log import error_location
from corral_server.gateway import log
from corral_server.gateway.auth.key_file import ApiKey
from corral_server.wire.errors import ApiError

MAX_STREAMS: Final = 64
MAX_STREAMS_OF_KEY: Final = 16
INTERVAL: Final = 0.5
"""Seconds between two events."""
SHARE: Final = 0.05

Render = Callable[[ApiKey | None], bytes]
"""Returns the event for a client with this key."""
IsValid = Callable[[ApiKey], bool]
_TOO_MANY: Final = "too many pages are open at this gateway, please try again later"
_SHUTTING_DOWN: Final = "the gateway is shutting down, please try again"


class EventStream:
    """The stream of one client. ``ended``: nothing follows what ``take`` returns."""

    __slots__ = ("_event", "_news", "_offered", "ended", "key")

    def __init__(self, key: ApiKey | None) -> None:
        self.key = key
        self.ended = False
        self._news = asyncio.Event()
        self._event = b""
        self._offered = b""

    def offer(self, event: bytes) -> None:
        if event != self._offered:
            self._event = self._offered = event
            self._news.set()

    def end(self) -> None:
        self.ended = True
        self._news.set()

    async def take(self, timeout: float) -> bytes:
        """Return the newest event that was not returned before; empty if none came within ``timeout`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._news.wait()
        if not self.ended:
            self._news.clear()
        event, self._event = self._event, b""
        return event


class EventStreams:
    """``render`` makes events, ``is_valid`` tells whether a key still allows a stream.

    ``before(active)`` is called before each round of events, and with False after the last stream has ended.
    """

    def __init__(self, render: Render, is_valid: IsValid, before: Callable[[bool], None]) -> None:
        self._render = render
        self._is_valid = is_valid
        self._before = before
        self._streams: set[EventStream] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def count(self) -> int:
        return len(self._streams)

    @contextmanager
    def open(self, key: ApiKey | None) -> Iterator[EventStream]:
        """Open a stream with its first event. Raises ApiError 503 if there are too many, or at a shutdown."""
        of_key = sum(stream.key == key for stream in self._streams) if key is not None else 0
        if self._closed:
            raise ApiError(503, _SHUTTING_DOWN, retry_after=1)
        if len(self._streams) >= MAX_STREAMS or of_key >= MAX_STREAMS_OF_KEY:
            raise ApiError(503, _TOO_MANY, retry_after=10)
        stream = EventStream(key)
        stream.offer(self._render(key))
        self._streams.add(stream)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="events of pages")
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._stop()

    def close(self) -> None:
        """End all streams; further ones are refused."""
        self._closed = True
        self._end_all()

    def _end_all(self) -> None:
        for stream in self._streams:
            stream.end()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._before(False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                self._round()
            except Exception as error:  # of any kind: the pages connect again instead of showing an old state
                log.event("page_events_failed", level=logging.ERROR, error=error_location(error))
                self._end_all()
            await asyncio.sleep(max(INTERVAL, (loop.time() - started) / SHARE))

    def _round(self) -> None:
        self._before(True)
        events: dict[bytes, bytes] = {}
        for stream in self._streams:
            key = stream.key
            if key is not None and not self._is_valid(key):
                stream.end()
                continue
            name = key.digest if key is not None else b""
            if name not in events:
                events[name] = self._render(key)
            stream.offer(events[name])
