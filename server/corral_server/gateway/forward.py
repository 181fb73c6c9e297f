"""One request on its way to a runner and its answer on the way back.

A request is sent again only while nothing of its answer has come and the runner cannot have begun it. The head of the
answer is held until its first bytes are there, and a small whole answer until it is complete, so that a runner that
dies early still becomes a proper error. A stream is passed on in whole lines or events: when it breaks off, the error
that ends it is never glued to half a line. The slot is given back with the last byte that the runner sends.
"""

from __future__ import annotations

import asyncio

from corral_server.gateway.departure import Departure
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.gateway.messages import Answer, Headers, Request, error_answer, send_answer
from corral_server.gateway.queue import Ticket
from corral_server.gateway.routing.dispatch import Dispatcher
from corral_server.gateway.upstream import Connection, NotBegun, Pool, UpstreamError
from corral_server.wire.errors import RETRY_HEADER, RUNNER_STOPPED, ApiError, stream_error

HOLD_LIMIT = 1024 * 1024
"""Bytes of a whole answer that are held until it is complete."""
LINE_LIMIT = 1024 * 1024
"""Bytes without the end of a line after which a stream is passed on as it is."""
STREAM_BROKE = "an error was encountered while running the model: unexpected EOF"
SHUTTING_DOWN = "the gateway is shutting down, please try again"

HOP_BY_HOP = frozenset(
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
_NOT_SENT_ON = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_COMMON_CONNECTION = (b"", b"keep-alive", b"close", b"Keep-Alive", b"Close")
_STREAM_ENDS = {b"application/x-ndjson": b"\n", b"text/event-stream": b"\n\n"}


class Forwarder:
    def __init__(self, dispatcher: Dispatcher, pool: Pool, *, tries: int) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._tries = tries

    async def forward(self, request: Request, entry: Entry, body: bytes) -> None:
        """Answers the request through a runner of this Model.

        Raises ApiError or ModelGone when it never got to one; every later failure is answered here.
        """
        ticket = self._dispatcher.enter(entry)
        departure = Departure(request.receive, request.exchange)
        try:
            with departure:
                await self._run(request, ticket, [_head_of(request, len(body)), body])
        finally:
            self._dispatcher.close(ticket)

    async def _run(self, request: Request, ticket: Ticket, message: list[bytes]) -> None:
        failures = 0
        while True:
            endpoint = await self._dispatcher.place(ticket)
            try:
                connection = await self._ask(endpoint, message)
            except NotBegun:
                failures += 1
                if failures >= self._tries:
                    raise ApiError(500, RUNNER_STOPPED) from None
                self._dispatcher.back(ticket)
                continue
            except UpstreamError:
                raise ApiError(500, RUNNER_STOPPED) from None
            if connection.status == 503 and any(name == RETRY_HEADER for name, _ in connection.headers):
                self._pool.put(endpoint.host, endpoint.port, connection)
                self._dispatcher.back(ticket)
                continue
            self._dispatcher.answered(ticket)
            message.clear()
            try:
                await self._relay(request, ticket, connection)
            finally:
                self._finish(endpoint, connection)
            return

    async def _ask(self, endpoint: Endpoint, message: list[bytes]) -> Connection:
        """Sends the request and waits for the beginning of the answer. Raises UpstreamError."""
        pool = self._pool
        connection = pool.take(endpoint.host, endpoint.port) or await pool.connect(endpoint.host, endpoint.port)
        try:
            connection.send(message)
            await connection.head()
        except BaseException:
            connection.abort()
            raise
        return connection

    def _finish(self, endpoint: Endpoint, connection: Connection) -> None:
        if connection.complete:
            self._pool.put(endpoint.host, endpoint.port, connection)
        else:
            connection.abort()

    async def _relay(self, request: Request, ticket: Ticket, connection: Connection) -> None:
        headers, ending = _response_headers(connection, request.extra)
        first = connection.take()
        if ending is not None:
            await self._relay_stream(request, ticket, connection, first=first, headers=headers, ending=ending)
            return
        held = [first]
        size = len(first)
        try:
            while not connection.complete and size <= HOLD_LIMIT:
                piece = await connection.read()
                held.append(piece)
                size += len(piece)
        except UpstreamError:
            raise ApiError(500, RUNNER_STOPPED) from None
        if connection.complete:
            self._dispatcher.close(ticket)
        send = request.send
        request.started = True
        await send({"type": "http.response.start", "status": connection.status, "headers": headers})
        body = held[0] if len(held) == 1 else b"".join(held)
        if connection.complete:
            await send({"type": "http.response.body", "body": body + connection.take(), "more_body": False})
            return
        await self._relay_rest(request, ticket, connection, body=body)

    async def _relay_rest(self, request: Request, ticket: Ticket, connection: Connection, *, body: bytes) -> None:
        """The rest of an answer too large to hold. When it breaks off, so does the client's connection."""
        while True:
            if connection.complete:
                self._dispatcher.close(ticket)
                body += connection.take()
            await request.send({"type": "http.response.body", "body": body, "more_body": not connection.complete})
            if connection.complete:
                return
            body = await connection.read()

    async def _relay_stream(
        self,
        request: Request,
        ticket: Ticket,
        connection: Connection,
        *,
        first: bytes,
        headers: Headers,
        ending: bytes,
    ) -> None:
        """Whole lines (events) as they come; what is after the last ``ending`` is kept for the next piece."""
        send = request.send
        request.started = True
        await send({"type": "http.response.start", "status": connection.status, "headers": headers})
        piece, tail, glue = first, b"", b""
        while True:
            if connection.complete:
                self._dispatcher.close(ticket)
                await send({"type": "http.response.body", "body": tail + piece + connection.take(), "more_body": False})
                return
            if tail:
                piece = tail + piece
                tail = b""
            if not piece.endswith(ending):
                cut = piece.rfind(ending) + len(ending) if ending in piece else 0
                if len(piece) - cut <= LINE_LIMIT:
                    piece, tail = piece[:cut], piece[cut:]
            if piece:
                glue = b"" if piece.endswith(ending) else ending
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            try:
                piece = await connection.read()
            except UpstreamError:
                last = glue + stream_error(request.path, STREAM_BROKE)
                await send({"type": "http.response.body", "body": last, "more_body": False})
                return


def _head_of(request: Request, length: int) -> bytes:
    """The request line and headers for the runner, framed anew. Raises ApiError 400 for a header that breaks it."""
    dropped = _NOT_SENT_ON
    parts = [b"POST ", request.path.encode("ascii")]
    if request.query:
        parts += (b"?", request.query)
    parts.append(b" HTTP/1.1\r\nhost: runner\r\n")
    lines = 2
    if request.connection not in _COMMON_CONNECTION:
        dropped = dropped | {token.strip().lower() for token in request.connection.split(b",")}
    for name, value in request.headers:
        if name not in dropped:
            parts += (name, b": ", value, b"\r\n")
            lines += 1
    parts.append(b"content-length: %d\r\n\r\n" % length)
    head = b"".join(parts)
    if head.count(b"\n") != lines + 2 or head.count(b"\r") != lines + 2:
        raise ApiError(400, "a header of the request holds a line break")
    return head


def _response_headers(connection: Connection, extra: Headers) -> tuple[Headers, bytes | None]:
    """The headers for the client, and what ends a line or event when the answer is a stream."""
    dropped = HOP_BY_HOP
    ending = None
    for name, value in connection.headers:
        if name == b"connection":
            dropped = dropped | {token.strip().lower() for token in value.split(b",")}
        elif name == b"content-type" and connection.status == 200:
            ending = _STREAM_ENDS.get(value.partition(b";")[0].strip().lower())
    return [(name, value) for name, value in connection.headers if name not in dropped] + extra, ending


async def answer_error(request: Request, error: ApiError) -> None:
    """The error in the wire format of the path; a full queue says when to come again."""
    answer: Answer = error_answer(request.path, error.status, error.message, retry_after=_retry_after(error))
    await send_answer(request, answer)


def _retry_after(error: ApiError) -> int | None:
    return 1 if error.status == 503 else None


async def answer_shutdown(request: Request) -> None:
    """What a request gets that is still held when the drain ends."""
    async with asyncio.timeout(1.0):
        await answer_error(request, ApiError(503, SHUTTING_DOWN))
