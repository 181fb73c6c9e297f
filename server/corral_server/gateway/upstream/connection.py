"""HTTP/1.1 connection to a runner: an asyncio protocol, one request at a time.

Each read from the socket is passed on as one piece, however many chunks it holds. The connection stops reading while
more than ``HIGH_WATER`` bytes are buffered, so that a slow client slows its runner down and the memory of a stream is
bounded. Proxy settings of the environment are never used.

The errors tell whether a failed request may be sent again. That is decided here, because only the connection knows what
the runner can have seen:

UpstreamError
├── NotBegun             the runner cannot have begun the request
│   └── Unreachable      connecting failed
│       └── Misdirected  the address belongs to a runner of another Model, which refused the request
└── Broken               it may have begun: the request is not sent again
    ├── ReadTimeout      it sent nothing for longer than allowed
    └── Interrupted      the gateway ended the request; the text says why

A runner begins a request when it has read all of it. When a connection ends without a byte of a response, the request
was not begun if it was never sent completely, or if the runner closed the connection in order (FIN) without having
received all of it: the FIN acknowledges whatever arrived before. A reset acknowledges nothing and may follow a request
that was read: it proves nothing. A machine that vanished has not begun what it did not acknowledge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

from corral_server.gateway.upstream.tcp import acknowledged_bytes, set_runner_keepalive

HIGH_WATER: Final = 64 * 1024
"""Bytes of a response that are buffered before reading pauses."""
HEAD_LIMIT: Final = 256 * 1024
"""Bytes of a response head that are accepted."""
_JOIN_LIMIT: Final = 64 * 1024
"""Bytes of a request body that is copied behind its head: up to there one write costs less than two."""


class UpstreamError(Exception):
    """Base class: the runner did not send a complete response."""


class NotBegun(UpstreamError):
    pass


class Unreachable(NotBegun):
    pass


class Misdirected(Unreachable):
    pass


class Broken(UpstreamError):
    pass


class ReadTimeout(Broken):
    pass


class Interrupted(Broken):
    pass


class RunnerConnection:
    """Call ``send``, then ``wait_for_head``, then ``read`` to the end of the response.

    ``complete``: the whole response has arrived. ``broken``: it ended too early. Either way what is buffered can still
    be read. ``on_end`` is called once when the response becomes complete or broken.

    It is an asyncio protocol by its methods alone: a base class that is not compiled would keep it from being compiled.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.broken = False
        self.closed = False
        self.idle_since = self.last_write = 0.0
        self.on_end: Callable[[RunnerConnection], None] | None = None
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._head_size = 0
        self._has_head = False
        self._framed = False
        self._keep_alive = False
        self._busy = False
        self._read_paused = False
        self._write_paused = False
        self._sent = self._sent_before = 0
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # Called by the user of the connection

    def send(self, head: bytes, body: bytes = b"") -> None:
        """Start a request. The connection must be idle."""
        assert self._transport is not None
        self.status, self.headers, self.complete = 0, [], False
        self._buffered = self._head_size = 0
        self._has_head = self._framed = False
        self._busy = True
        self._sent_before = self._sent
        self._sent += len(head) + len(body)
        if len(body) <= _JOIN_LIMIT:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    @property
    def response_begun(self) -> bool:
        """Whether the response's head and its first bytes or its end have arrived."""
        return self._has_head and bool(self._pieces or self.complete)

    def next_event(self) -> asyncio.Future[None]:
        """Return a future that is done when something has arrived, or the response has ended.

        Raises UpstreamError when it has ended too early. It is no coroutine, because each one on the way to the event
        loop costs time for every piece of every response.
        """
        self._raise_error()
        self._waiter = waiter = self.loop.create_future()
        return waiter

    async def wait_for_head(self) -> None:
        """Wait until the response has begun. Raises UpstreamError."""
        while not self.response_begun:
            await self.next_event()

    async def read(self) -> bytes:
        """Return what arrived since the last call; empty only at the end of the response. Raises Broken."""
        while not self._pieces and not self.complete:
            await self.next_event()
        return self.read_buffered()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def read_buffered(self) -> bytes:
        """Return what has arrived without waiting, possibly nothing."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._buffered = 0
        if self._read_paused and self._transport is not None:
            self._read_paused = False
            self._transport.resume_reading()
        return data

    def pause_reading(self) -> None:
        """Read nothing until ``resume_reading``."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not (self._read_paused or self._transport.is_closing()):
            self._transport.resume_reading()

    @property
    def reusable(self) -> bool:
        """Whether another request may use it: response complete and framed, and the request was sent completely."""
        if not self.complete or self.closed or not self._framed or self._transport is None:
            return False
        return self._keep_alive and not self._transport.get_write_buffer_size()

    def release(self) -> None:
        """Make the connection idle after its response has been read to the end."""
        self._busy = False
        self._pieces = []
        self.on_end = None

    def interrupt(self, reason: str) -> None:
        """End the response with ``Interrupted`` unless it is complete."""
        if self._busy and not self.complete:
            self._fail(Interrupted(reason))

    def abort(self) -> None:
        """Close at once; the runner sees that the response is not wanted any more."""
        self.closed = True
        self._busy = False
        self.on_end = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        self._transport.set_write_buffer_limits(high=0)  # ``_write_paused`` then tells whether everything was sent
        set_runner_keepalive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Broken("the runner's response is not HTTP"))
            return
        if not self._has_head:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT:
                self._fail(Broken("the head of the runner's response is too large"))
            return
        if self.complete:
            self._end()
        elif self._buffered > HIGH_WATER and not self._read_paused and self._transport is not None:
            self._read_paused = True
            self._transport.pause_reading()
        if self._pieces or self.complete:
            self._wake()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self._busy or self.complete:
            return
        if self._has_head:
            if exc is None and not self._framed:
                self.complete = True
                self._end()
                self._wake()
            else:
                self._fail(Broken("the connection to the runner broke off"))
        elif not self._head_size and self._proves_not_begun(exc):
            self._fail(NotBegun("the connection ended before the runner had the request"))
        else:
            self._fail(Broken("the runner closed the connection without a response"))

    # httptools

    def on_message_begin(self) -> None:
        if self.complete:
            self.closed = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:
            name = name.lower()
            if name in (b"content-length", b"transfer-encoding"):
                self._framed = True
                if name == b"transfer-encoding" and value.lower() != b"chunked":
                    raise ValueError(value)  # it would be forwarded without being decoded
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []
            return
        if self.status > 599:
            raise ValueError(self.status)
        self._has_head = True
        self._framed |= self.status in (204, 304)

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._pieces.append(body)
            self._buffered += len(body)

    def on_message_complete(self) -> None:
        if self._has_head:
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()  # known only now: the parser forgets it afterwards

    # Internal

    def _proves_not_begun(self, error: Exception | None) -> bool:
        """Whether such an end of the connection proves that the request was not begun; see the top of this module."""
        if self._write_paused or isinstance(error, BrokenPipeError):
            return True
        if isinstance(error, ConnectionError):
            return False
        assert self._transport is not None
        acknowledged = acknowledged_bytes(self._transport.get_extra_info("socket"))
        if acknowledged is None:
            return False
        return acknowledged < self._sent if error is None else acknowledged <= self._sent_before

    def _end(self) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self)

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
            self.broken = True
        self._end()
        self.abort()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
