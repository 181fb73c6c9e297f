"""One request of a client and its response: the request/response cycle that the application handles.

- The application reads the body by ``read`` until ``at_eof``, then sends ``start_response`` and pieces by ``write``. It
  calls ``drain`` between pieces, so that a slow client slows the sender down.
- The head of the response is kept until the first piece of its body: both leave in one write.
- A response without a content-length is chunked; for HTTP/1.0 it ends with the connection (RFC 9112 section 6).
- A response whose body does not have the announced length raises RuntimeError: the client would take the difference
  for another response.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Iterable
from typing import Final

from corral_server.gateway.http_server.flow_control import FlowControl
from corral_server.gateway.http_server.observer import ResponseObserver
from corral_server.gateway.http_server.states import (
    ABORTED,
    COMPLETE,
    DONE,
    HEAD,
    IDLE,
    SEND_BODY,
    RequestState,
    ResponseState,
)

Headers = list[tuple[bytes, bytes]]
"""Names in lower case."""

_SMALL_PIECE: Final = 1024
"""Bytes of a piece of a body that is joined with the next one."""
READ_AHEAD: Final = 64 * 1024
"""Bytes of a request's body that are buffered before reading pauses."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


STATUS_LINES: Final = {status: status_line(status) for status in range(100, 600)}


class ClientDisconnected(Exception):
    """The client disconnected before its request was complete."""


def append_piece(pieces: list[bytes], data: bytes) -> None:
    """Append to the pieces of a body. Small pieces are joined: an object of two bytes takes more than forty."""
    if pieces and len(data) < _SMALL_PIECE and len(pieces[-1]) < _SMALL_PIECE:
        pieces[-1] += data
    else:
        pieces.append(data)


class Exchange:
    """``method``, ``path`` (decoded), ``query`` and ``headers`` are those of the request head.

    ``bytes_received`` counts body bytes. ``half_closed``: the client has shut down its sending side. A client that does
    so is answered at once or counts as disconnected, as with most servers. ``task`` runs the application.
    ``disconnect_scope`` is cancelled when the client disconnects.
    """

    __slots__ = (
        "_body",
        "_body_waiter",
        "_bytes_left",
        "_bytes_read",
        "_chunked",
        "_flow",
        "_head",
        "_no_body",
        "_on_done",
        "bytes_received",
        "disconnect_scope",
        "expects_continue",
        "half_closed",
        "headers",
        "http_1_0",
        "keep_alive",
        "method",
        "observer",
        "path",
        "query",
        "request_state",
        "response_state",
        "task",
    )

    def __init__(self, flow: FlowControl, on_done: Callable[[Exchange], None]) -> None:
        self._flow = flow
        self._on_done = on_done
        self.headers: Headers = []
        self.method = ""
        self.path = ""
        self.query = b""
        self.http_1_0 = False
        self.keep_alive = True
        self.expects_continue = False
        self.half_closed = False
        self.request_state: RequestState = HEAD
        self.response_state: ResponseState = IDLE
        self.task: asyncio.Task[None] | None = None
        self.disconnect_scope: DisconnectScope | None = None
        self.observer: ResponseObserver | None = None
        self.bytes_received = self._bytes_read = 0
        self._body: list[bytes] = []
        self._body_waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._chunked = self._no_body = False
        self._bytes_left = 0

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent: the response is done or aborted."""
        return self.response_state is DONE or self.response_state is ABORTED

    # Called by the connection

    def feed_body(self, data: bytes) -> None:
        append_piece(self._body, data)
        self.bytes_received += len(data)
        if self.bytes_received - self._bytes_read > READ_AHEAD:
            self._flow.pause_reading()
        self._wake_reader()

    def complete_request(self) -> None:
        self.request_state = COMPLETE
        self._wake_reader()

    def disconnect(self) -> None:
        """Abort the response because the client is gone."""
        if self.closed:
            return
        if self.observer is not None:
            self.observer.finish(disconnected=True)
        self._abort()

    def abort(self, status: int) -> None:
        """Abort the response: with an error ``status`` that the connection sends, or as far as it was sent."""
        if self.closed:
            return
        if self.observer is not None:
            if self.response_state is SEND_BODY:
                self.observer.incomplete = True
            else:
                self.observer.status = status
            self.observer.finish()
        self._abort()

    # Called by the application

    @property
    def at_eof(self) -> bool:
        """Whether the whole request body has been read."""
        return self.request_state is COMPLETE and not self._body

    async def read(self) -> bytes:
        """Return the body bytes that arrived since the last call; empty only at the end of the body.

        Raises ClientDisconnected.
        """
        if self.expects_continue and self.request_state is not COMPLETE and self.response_state is IDLE:
            self._flow.write(CONTINUE)
        self.expects_continue = False
        while not (self._body or self.request_state is COMPLETE or self.response_state is ABORTED):
            self._body_waiter = self._flow.loop.create_future()
            await self._body_waiter
        return self.read_buffered()

    def read_buffered(self) -> bytes:
        """Return the body bytes that have arrived, without waiting. Raises ClientDisconnected."""
        if self.response_state is ABORTED:
            raise ClientDisconnected
        pieces, self._body = self._body, []
        if self.bytes_received - self._bytes_read > READ_AHEAD:
            self._flow.resume_reading()
        self._bytes_read = self.bytes_received
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def drain(self) -> None:
        """Wait until the client takes more of the response; return at once when it is gone."""
        if not self.closed:
            await self._flow.drain()

    def drop_connection(self) -> None:
        """Close the connection with everything that the client has not read."""
        self._flow.abort()

    @property
    def write_paused(self) -> bool:
        """Whether the client reads too slowly, so that ``drain`` would wait."""
        return self._flow.write_paused

    def start_response(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin the response; the head is sent with the first piece of the body. No effect when it was aborted."""
        if self.response_state is ABORTED:
            return
        if self.response_state is not IDLE:
            raise RuntimeError("the response has already started")
        self._head = self._encode_head(status, headers)
        self.response_state = SEND_BODY
        if self.observer is not None:
            self.observer.status = status

    def write(self, piece: bytes, *, last: bool = False) -> None:
        """Send a piece of the body, not empty unless it is the ``last``. No effect when the response was aborted."""
        if self.response_state is ABORTED:
            return
        if self.response_state is not SEND_BODY:
            raise RuntimeError("a body needs a response that has started and not ended")
        observer = self.observer
        if observer is not None:
            observer.record_write(piece, stream=self._chunked)
        if self._chunked:
            piece = _chunk(piece, last=last)
        elif self._no_body:
            piece = b""
        else:
            self._count(len(piece), last=last)
        if self._head:
            piece, self._head = self._head + piece, b""
        if piece:
            self._flow.write(piece)
        if last:
            self.response_state = DONE
            if observer is not None:
                observer.finish()
            self._on_done(self)

    def write_heartbeat(self, piece: bytes) -> None:
        """Send the head of the response, if it was not sent yet, and bytes that are no part of its content.

        ``piece`` may be empty. The observer is not notified. No effect while the client reads too slowly, and when the
        response was aborted.
        """
        if self.response_state is not SEND_BODY or self._flow.write_paused:
            return
        if self._chunked:
            piece = _chunk(piece, last=False)
        if self._head:
            piece, self._head = self._head + piece, b""
        if piece:
            self._flow.write(piece)

    # Internal

    def _abort(self) -> None:
        self.response_state = ABORTED
        self._wake_reader()
        if self.disconnect_scope is not None:
            self.disconnect_scope.cancel()

    def _wake_reader(self) -> None:
        waiter = self._body_waiter
        if waiter is not None:
            self._body_waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _encode_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The status line and headers, with framing and connection headers of this connection."""
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
            self._no_body = True
        elif length >= 0 or self.http_1_0:
            self._bytes_left = length
            self.keep_alive = self.keep_alive and length >= 0
        else:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
            lines += 1
        if self.request_state is not COMPLETE:
            self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n\r\n")
        else:
            parts.append(b"connection: keep-alive\r\n\r\n" if self.http_1_0 else b"\r\n")
            lines -= not self.http_1_0
        head = b"".join(parts)
        if head.count(b"\n") != lines + 2 or head.count(b"\r") != lines + 2:
            raise RuntimeError("a response header holds a line break")
        return head

    def _count(self, size: int, *, last: bool) -> None:
        if self._bytes_left < 0:
            return
        self._bytes_left -= size
        if self._bytes_left < 0 or (last and self._bytes_left):
            raise RuntimeError("the response body does not have the announced length")


class DisconnectScope:
    """``with DisconnectScope(exchange):`` cancels the request's task when its client disconnects.

    It works as ``asyncio.timeout`` does: inside the block the disconnect is an ``asyncio.CancelledError``, which does
    not leave the block. A client that has half-closed its connection counts as disconnected here.
    """

    __slots__ = ("_cancelled", "_exchange")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._cancelled = False

    def __enter__(self) -> DisconnectScope:
        exchange = self._exchange
        exchange.disconnect_scope = self
        if exchange.response_state is ABORTED:
            self.cancel()
        elif exchange.half_closed:
            exchange.disconnect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self._exchange.disconnect_scope = None
        task = self._exchange.task
        return kind is asyncio.CancelledError and self._cancelled and task is not None and task.uncancel() == 0

    def cancel(self) -> None:
        self._cancelled = True
        if self._exchange.task is not None:
            self._exchange.task.cancel()


def _chunk(piece: bytes, *, last: bool) -> bytes:
    if not last:
        return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(piece), piece) if piece else b"0\r\n\r\n"
