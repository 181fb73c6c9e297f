"""HTTP/1.1 connections to runners: one asyncio protocol each, one request at a time.

Each read from the socket is handed on as one piece, however many chunks it held. A connection stops reading while more
than ``HIGH_WATER`` bytes wait to be taken, so a slow client slows its runner and memory per stream stays bounded. No
proxy from the environment is ever used.

Whether a failed request may be sent again is decided here, because only here is it known what the runner can have seen:

UpstreamError
├── NotBegun        the runner cannot have begun the request
│   └── Unreachable connecting failed, so not even the connection was there
└── Broken          it may have begun: no retry
    └── Silent      it sent nothing for longer than it may

A runner begins a request when it has read all of it. So when a connection ends without a byte of an answer, the request
was not begun if it never left whole, or if the runner's side ended the connection in order without having got it: the
segment that ends a connection acknowledges whatever arrived before. A reset acknowledges nothing, and may follow a
request that was read: it proves nothing. A machine that vanished has not begun what it acknowledged nothing of.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

import httptools

from corral_server.gateway.listener import Listener
from corral_server.gateway.sockets import acknowledged, notice_loss

HIGH_WATER: Final = 64 * 1024
HEAD_LIMIT: Final = 256 * 1024
"""Bytes of response head that are accepted."""


class UpstreamError(Exception):
    """Base: the runner did not answer in full."""


class NotBegun(UpstreamError):
    pass


class Unreachable(NotBegun):
    pass


class Broken(UpstreamError):
    pass


class Silent(Broken):
    pass


class Connection:
    """One connection, one request at a time. Its user calls ``send``, then ``head``, then ``read`` to the end.

    ``complete`` is set when the whole response arrived, ``broken`` when it ended too early; what is not taken yet
    still waits for ``read``. Instead of waiting a ``listener`` may be set: it hears whenever ``head`` or ``read``
    would return or raise.

    It is an asyncio protocol by its methods alone: with a base class that is not compiled, it could not be either.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.broken = False
        self.idle_since = self.wrote_at = 0.0
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self.loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._has_head = False
        self._framed = False
        self._keeps_alive = False
        self._busy = False
        self._paused = False
        self._sent = self._sent_before = 0
        self._unsent = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.listener: Listener | None = None

    # What the user calls

    def send(self, data: list[bytes]) -> None:
        """Starts a request. The connection must be idle."""
        assert self._transport is not None
        self.status, self.headers, self.complete = 0, [], False
        self._size = self._head_size = 0
        self._has_head = self._framed = False
        self._busy = True
        self._sent_before = self._sent
        for piece in data:
            self._sent += len(piece)
        self._transport.write(data[0]) if len(data) == 1 else self._transport.writelines(data)

    async def head(self) -> None:
        """Waits for the response's head and its first bytes or end. Raises UpstreamError."""
        while not (self._has_head and (self._pieces or self.complete)):
            await self._wait()

    async def read(self) -> bytes:
        """What arrived since the last call, at least one byte; empty at the end of the response. Raises Broken."""
        while not self._pieces and not self.complete:
            await self._wait()
        return self.take()

    def take(self) -> bytes:
        """What has arrived, without waiting."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def rest(self) -> None:
        """Nothing is read until ``go_on``."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def go_on(self) -> None:
        if self._transport is not None and not (self._paused or self._transport.is_closing()):
            self._transport.resume_reading()

    @property
    def reusable(self) -> bool:
        """Whether the next request may use it: the answer is complete, framed, and the request went out whole."""
        if not self.complete or self.closed or not self._framed or self._transport is None:
            return False
        return self._keeps_alive and not self._transport.get_write_buffer_size()

    def release(self) -> None:
        """The response was read to its end: the connection is idle until the next ``send``."""
        self._busy = False
        self._pieces = []

    def abort(self) -> None:
        """Closes at once; the runner notices that nobody wants the rest."""
        self.closed = True
        self._busy = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        self._transport.set_write_buffer_limits(high=0)  # to be told exactly whether all has left
        notice_loss(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Broken("the runner's answer is not HTTP"))
            return
        if not self._has_head:
            self._head_size += len(data)  # before parsing ended: whatever came was the runner's answer
            if self._head_size > HEAD_LIMIT:
                self._fail(Broken("the runner's answer has too long a head"))
            return
        if self._size > HIGH_WATER and not self._paused and not self.complete and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self._pieces or self.complete:
            self._wake()

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self._busy or self.complete:
            return
        if self._has_head:
            if exc is None and not self._framed:
                self.complete = True
                self._wake()
            else:
                self._fail(Broken("the connection to the runner broke off"))
        elif not self._head_size and self._not_begun(exc):
            self._fail(NotBegun("the connection ended before the runner had the request"))
        else:
            self._fail(Broken("the runner closed the connection without an answer"))

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
                    raise ValueError(value)  # it would go on undecoded, and nobody would know
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
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._has_head:
            self.complete = True
            self._keeps_alive = self._parser.should_keep_alive()  # known only now: the parser forgets it afterwards

    # Inside

    def _not_begun(self, end: Exception | None) -> bool:
        """Whether a connection that ended so proves that the request was not begun; see the top of this module."""
        if self._unsent or isinstance(end, BrokenPipeError):
            return True
        if isinstance(end, ConnectionError):
            return False
        assert self._transport is not None
        acked = acknowledged(self._transport.get_extra_info("socket"))
        if acked is None:
            return False
        return acked < self._sent if end is None else acked <= self._sent_before

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
            self.broken = True
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self.listener is not None:
            self.listener.heard()
            return
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        self._raise_error()
        self._waiter = self.loop.create_future()
        await self._waiter
        if not self._pieces:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
