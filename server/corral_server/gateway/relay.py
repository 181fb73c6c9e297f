"""A runner's answer on its way back to the client.

The head is held until the first bytes are there, and a whole answer up to ``HOLD_LIMIT`` until it is complete, so that
a runner that dies early still becomes a proper error. A stream is passed on in whole lines or events: when it breaks
off, the error that ends it is never glued to half a line. ``done`` is called when the runner has sent its last byte.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from corral_server.gateway.messages import Headers, Request
from corral_server.gateway.pacing import Pacing
from corral_server.gateway.upstream import Connection, UpstreamError
from corral_server.wire.errors import RUNNER_STOPPED, ApiError, stream_error

HOLD_LIMIT = 1024 * 1024
"""Bytes of a whole answer that are held until it is complete."""
LINE_LIMIT = 1024 * 1024
"""Bytes without the end of a line after which a stream is passed on as it is."""
SHUTTING_DOWN = "the gateway is shutting down, please try again"
LAST_WORDS = 1.0
"""Seconds for the error that ends a stream when the drain is over."""
STREAM_BROKE = "an error was encountered while running the model: unexpected EOF"

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_LENGTH: Final = frozenset((b"content-length",))
_STREAM_ENDS: Final = {b"application/x-ndjson": b"\n", b"text/event-stream": b"\n\n"}

Done = Callable[[], None]


async def relay(request: Request, connection: Connection, done: Done, *, pacing: Pacing) -> None:
    """The whole answer; its head has arrived. Raises ApiError while nothing was sent to the client."""
    headers, ending = response_headers(connection, request.extra)
    if ending is not None:
        request.started = True
        await request.send({"type": "http.response.start", "status": connection.status, "headers": headers})
        await _relay_stream(request, connection, done, pacing=pacing, ending=ending)
        return
    body = await _hold(connection)
    if connection.complete:
        done()
    request.started = True
    await request.send({"type": "http.response.start", "status": connection.status, "headers": headers})
    await _relay_rest(request, connection, done, body=body)


def response_headers(connection: Connection, extra: Headers) -> tuple[Headers, bytes | None]:
    """The headers for the client, and what ends a line or event when the answer is a stream.

    A stream goes without the length that its runner announced: should it break off, an error follows that has none.
    """
    dropped = HOP_BY_HOP
    ending = None
    for name, value in connection.headers:
        if name == b"connection":
            dropped = dropped | {token.strip().lower() for token in value.split(b",")}
        elif name == b"content-type" and connection.status == 200:
            ending = _STREAM_ENDS.get(value.partition(b";")[0].strip().lower())
    if ending is not None:
        dropped = dropped | _LENGTH
    return [(name, value) for name, value in connection.headers if name not in dropped] + extra, ending


async def _hold(connection: Connection) -> bytes:
    held = [connection.take()]
    size = len(held[0])
    try:
        while not connection.complete and size <= HOLD_LIMIT:
            held.append(await connection.read())
            size += len(held[-1])
    except UpstreamError:
        raise ApiError(500, RUNNER_STOPPED) from None
    return b"".join(held)


async def _relay_rest(request: Request, connection: Connection, done: Done, *, body: bytes) -> None:
    """What was held, then the rest of an answer too large to hold. When it breaks off, the answer stays unfinished."""
    while True:
        if connection.complete:
            done()
            await request.send({"type": "http.response.body", "body": body + connection.take(), "more_body": False})
            return
        await request.send({"type": "http.response.body", "body": body, "more_body": True})
        try:
            body = await connection.read()
        except UpstreamError:
            request.broke()
            return


async def _relay_stream(request: Request, connection: Connection, done: Done, *, pacing: Pacing, ending: bytes) -> None:
    lines = Lines(ending)
    piece = connection.take()
    send = request.send
    while True:
        if connection.complete:
            done()
            last = lines.rest(piece + connection.take())
            await send({"type": "http.response.body", "body": last, "more_body": False})
            return
        whole = lines.whole(piece)
        if whole:
            await send({"type": "http.response.body", "body": whole, "more_body": True})
            pacing.wrote(connection)
        try:
            piece = await connection.read()
        except UpstreamError:
            request.broke()
            last = lines.broken(request.path)
            await send({"type": "http.response.body", "body": last, "more_body": False})
            return
        except asyncio.CancelledError:  # the drain has ended, or the client left and hears nothing of it
            request.broke()
            last = lines.broken(request.path, SHUTTING_DOWN)
            with contextlib.suppress(TimeoutError):  # it does not read either
                async with asyncio.timeout(LAST_WORDS):
                    await send({"type": "http.response.body", "body": last, "more_body": False})
            raise


class Lines:
    """A stream in whole lines (events), as they come; what is after the last ``ending`` is kept for the next piece."""

    __slots__ = ("_ending", "_glue", "_tail")

    def __init__(self, ending: bytes) -> None:
        self._ending = ending
        self._tail = b""
        self._glue = b""

    def whole(self, piece: bytes) -> bytes:
        """What of the stream may be passed on now."""
        if self._tail:
            piece, self._tail = self._tail + piece, b""
        if piece.endswith(self._ending):
            self._glue = b""
            return piece
        piece, self._tail = _whole_lines(piece, self._ending)
        if piece:
            self._glue = b"" if piece.endswith(self._ending) else self._ending
        return piece

    def rest(self, piece: bytes) -> bytes:
        """The end of a stream that ended well."""
        return self._tail + piece

    def broken(self, path: str, text: str = STREAM_BROKE) -> bytes:
        """The end of one that did not: an error on a line of its own."""
        return self._glue + stream_error(path, text)


def _whole_lines(piece: bytes, ending: bytes) -> tuple[bytes, bytes]:
    """The part up to the last ``ending``, and the rest; all of it when the rest grows too long to be kept."""
    found = piece.rfind(ending)
    cut = found + len(ending) if found >= 0 else 0
    return (piece[:cut], piece[cut:]) if len(piece) - cut <= LINE_LIMIT else (piece, b"")
