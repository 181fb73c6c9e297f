"""One request and its response, as the ASGI application sees them.

The head of the response is kept until the first piece of its body, so that both go out in one write. A response whose
length is not known is chunked, or ends with the connection for HTTP/1.0.
"""

from __future__ import annotations

import asyncio
import http
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from corral_server.gateway.listener import Listener
from corral_server.gateway.messages import Headers, Message
from corral_server.gateway.metrics import CHUNK

if TYPE_CHECKING:
    from corral_server.gateway.front.connection import FrontConnection
    from corral_server.gateway.record import Record

READ_AHEAD: Final = 64 * 1024
"""Bytes of a request's body that are kept before the client has to wait for the application."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


STATUS_LINES: Final = {status: status_line(status) for status in range(100, 600)}
_DISCONNECT: Message = {"type": "http.disconnect"}


class Exchange:
    """``listener`` hears when the client leaves, or reads again, and when the server wants to end.

    ``method``, ``path`` (decoded) and ``query`` are of the head. ``begun``: it has been read. ``complete``: all of
    the request has. ``started``, ``finished``: the response.
    ``fed``: bytes of its body that came. ``half``: the client has said that it sends no more, and counts as gone as
    soon as it would have to wait.
    ``task`` runs the application for it, or ``work`` when the application went ahead without a coroutine at first.
    ``record`` is told what is written, where there is one.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_delivered",
        "_head",
        "_left_over",
        "_taken",
        "_waiter",
        "begun",
        "bodiless",
        "complete",
        "connection",
        "expects",
        "fed",
        "finished",
        "gone",
        "half",
        "headers",
        "keep_alive",
        "listener",
        "method",
        "old",
        "path",
        "query",
        "record",
        "started",
        "task",
        "work",
    )

    def __init__(self, connection: FrontConnection) -> None:
        self.connection = connection
        self.headers: Headers = []
        self.method = ""
        self.path = ""
        self.query = b""
        self.begun = False
        self.complete = False
        self.started = False
        self.finished = False
        self.gone = self.half = False
        self.keep_alive = True
        self.expects = False
        self.old = False
        self.bodiless = False
        self.listener: Listener | None = None
        self.work: Callable[[], Awaitable[None]] | None = None
        self.task: asyncio.Task[None] | None = None
        self.record: Record | None = None
        self._body: list[bytes] = []
        self.fed = self._taken = 0
        self._delivered = False
        self._waiter: asyncio.Future[None] | None = None
        self._head: bytes | None = None
        self._chunked = False
        self._left_over = 0

    # What the connection tells

    def feed(self, data: bytes) -> None:
        self._body.append(data)
        self.fed += len(data)
        if self.fed - self._taken > READ_AHEAD:
            self.connection.pause_reading()
        self._wake()

    def end(self) -> None:
        """The request is complete."""
        self.complete = True
        self._wake()

    def leave(self) -> None:
        """The client is gone."""
        if self.record is not None and not (self.gone or self.finished):
            self.record.end(left=True)
        self.gone = True
        self._wake()
        if self.listener is not None and not self.finished:
            self.listener.left()

    def refused(self, status: int) -> None:
        """The connection ends: with an answer of this status, or with the response that has begun as it is."""
        record = self.record
        if record is not None and not (self.gone or self.finished):
            if self.started:
                record.broken = True
            else:
                record.status = status
            record.end()
            self.record = None
        self.leave()

    def forget(self) -> None:
        """It is over: nothing that refers to itself is left for the cycle collector."""
        self.work = self.task = None

    # The short way, without a coroutine

    @property
    def choked(self) -> bool:
        """Whether the client reads too slowly for more."""
        return self.connection.choked is not None

    def whole_body(self) -> bytes:
        """The body of a complete request; ``receive`` gives it again."""
        if len(self._body) > 1:
            self._body = [b"".join(self._body)]
        return self._body[0] if self._body else b""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole response in one write; its length is among the headers."""
        if self.gone:
            return
        head = self._start(status, headers)
        if self._chunked:
            body = _framed(body, more=False)
        elif not self.bodiless:
            self._count(len(body), more=False)
        self.connection.write(head if self.bodiless else head + body)
        record = self.record
        if record is not None:
            record.wrote(body)
            record.end()
        self.finished = True
        self.connection.finished(self)

    def open(self, status: int, headers: Headers) -> None:
        """Begins a response that comes in pieces; the head goes out with the first of them."""
        self._head = self._start(status, headers)

    def push(self, piece: bytes, *, last: bool = False) -> None:
        """The next piece, not empty unless it is the last; the caller heeds ``choked``."""
        if self.gone:
            return
        if self._chunked and not last and not self._head:  # by far the most common
            size = len(piece)
            record = self.record
            if record is not None:  # as Record.wrote does, without calls for each piece of each stream
                now = perf_counter()
                gap, record.last = now - record.last, now
                gaps = record.meter.chunk
                gaps.counts[bisect_left(CHUNK, gap)] += 1
                gaps.total += gap
                record.size += size
                if record.sink is not None:
                    record.tail = piece
            self.connection.write(b"%x\r\n%b\r\n" % (size, piece))
            return
        self._wrote(piece, last=last)
        if self._chunked:
            piece = _framed(piece, more=not last)
        elif not self.bodiless:
            self._count(len(piece), more=not last)
        if self._head:
            piece, self._head = (self._head if self.bodiless else self._head + piece), b""
        elif self.bodiless:
            piece = b""
        if piece:
            self.connection.write(piece)
        if last:
            self.finished = True
            self.connection.finished(self)

    def go_on(self, work: Callable[[], Awaitable[None]]) -> None:
        """Has the rest done by a coroutine."""
        self.work = work
        self.connection.start(self)

    # ASGI

    async def receive(self) -> Message:
        if self.expects and not self.started and not self.complete:
            self.connection.write(CONTINUE)
        self.expects = False
        while not (self.gone or self.finished):
            if self._body or (self.complete and not self._delivered):
                return self._take()
            self._waiter = self.connection.loop.create_future()
            await self._waiter
        return _DISCONNECT

    def _take(self) -> Message:
        pieces = self._body
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._body = []
        self._delivered = self.complete
        if self.fed - self._taken > READ_AHEAD:
            self.connection.resume_reading()
        self._taken = self.fed
        return {"type": "http.request", "body": body, "more_body": not self.complete}

    async def send(self, message: Message) -> None:
        connection = self.connection
        if connection.choked is not None and not self.gone:
            await connection.choked
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self._head = self._start(message["status"], message.get("headers", ()))
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        head = self._head
        if head is None:
            raise RuntimeError("a response begins with its start and ends once")
        self._wrote(body, last=not more)
        if not self.bodiless:
            if self._chunked:
                body = _framed(body, more)
            else:
                self._count(len(body), more)
            head = head + body if head else body
        self._head = b""
        if head:
            connection.write(head)
        if not more:
            self._head = None
            self.finished = True
            self._wake()
            connection.finished(self)

    def _start(self, status: int, headers: Headers) -> bytes:
        if self.started:
            raise RuntimeError("the response has begun already")
        self.started = True
        if self.record is not None:
            self.record.status = status
        parts = [STATUS_LINES[status]]
        length, lines = -1, 1
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                continue
            parts += (name, b": ", value, b"\r\n")
            lines += 1
        if status in (204, 304) or self.method == "HEAD":
            self.bodiless = True
        elif length >= 0:
            self._left_over = length
        elif self.old:
            self._left_over = -1
            self.keep_alive = False
        else:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
            lines += 1
        if not self.complete:
            self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n\r\n")
        else:
            parts.append(b"connection: keep-alive\r\n\r\n" if self.old else b"\r\n")
            lines -= not self.old
        head = b"".join(parts)
        if head.count(b"\n") != lines + 2 or head.count(b"\r") != lines + 2:
            raise RuntimeError("a header of the response holds a line break")
        return head

    def _count(self, size: int, more: bool) -> None:
        """A response that is longer or shorter than it said would be read as another one."""
        if self._left_over < 0:
            return
        self._left_over -= size
        if self._left_over < 0 or (not more and self._left_over):
            raise RuntimeError("the response's body has not the length that its head says")

    def _wrote(self, piece: bytes, *, last: bool) -> None:
        if self.record is not None:
            self.record.wrote(piece, stream=self._chunked)
            if last:
                self.record.end()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


def _framed(body: bytes, more: bool) -> bytes:
    if not body:
        return b"" if more else b"0\r\n\r\n"
    return b"%x\r\n%b\r\n" % (len(body), body) if more else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
