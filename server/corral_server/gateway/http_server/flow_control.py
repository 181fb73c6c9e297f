"""Back-pressure of one client connection, in both directions.

Reading pauses while a request body is ahead of its consumer, or while too many pipelined requests are pending
(``pipeline_full``). Writing is paused by the transport while the client reads too slowly; ``drain`` waits for its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class FlowControl:
    """``write`` is the transport's own method: it is called for every chunk of every stream.

    ``write_paused_at`` is the event loop's time at which writing was last paused.
    """

    __slots__ = (
        "_drain_waiter",
        "_transport",
        "loop",
        "pipeline_full",
        "read_paused",
        "write",
        "write_paused",
        "write_paused_at",
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.write: Callable[[bytes], None] = transport.write
        self.pipeline_full = False
        self.read_paused = False
        self.write_paused = False
        self.write_paused_at = 0.0
        self._transport = transport
        self._drain_waiter: asyncio.Future[None] | None = None

    def pause_reading(self) -> None:
        if not self.read_paused and not self._transport.is_closing():
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Has no effect while ``pipeline_full`` is set."""
        if self.read_paused and not self.pipeline_full and not self._transport.is_closing():
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.write_paused_at = self.loop.time()

    def resume_writing(self) -> None:
        self.write_paused = False
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def abort(self) -> None:
        """Close the connection at once; what is not sent yet is lost."""
        self._transport.abort()

    async def drain(self) -> None:
        """Wait until the transport takes more, or the connection is lost."""
        while self.write_paused:
            self._drain_waiter = self.loop.create_future()
            await self._drain_waiter
