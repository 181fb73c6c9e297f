"""One request on its way to a runner.

A request is sent again only while nothing of its answer has come and the runner cannot have begun it. The slot is
given back with the last byte that the runner sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from corral_server.gateway.departure import Departure
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.gateway.express import Express, Resume
from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.messages import Answer, Request, error_answer, send_answer
from corral_server.gateway.pacing import Pacing
from corral_server.gateway.pool import Pool
from corral_server.gateway.queue import Ticket
from corral_server.gateway.record import Record
from corral_server.gateway.relay import HOP_BY_HOP, SHUTTING_DOWN, relay
from corral_server.gateway.routing.dispatch import Dispatcher
from corral_server.gateway.upstream import Connection, NotBegun, Silent, Unreachable, UpstreamError
from corral_server.wire import headers
from corral_server.wire.errors import RUNNER_STOPPED, ApiError

_NOT_SENT_ON: Final = HOP_BY_HOP | {b"host", b"content-length", b"expect", headers.QUEUED, headers.GATEWAY}
RUNNER_SILENT = "the model sent nothing for longer than it may, please try again"
_COMMON_CONNECTION: Final = frozenset((b"", b"keep-alive", b"close", b"Keep-Alive", b"Close"))


class Forwarder:
    """``tries`` bounds how often a request is sent that no runner begins, ``patience`` (seconds) how long it waits for
    one that is listed as ready and cannot be reached. ``name`` is what the runners know this gateway by. The other
    attributes are for those requests that go the short way.
    """

    def __init__(self, dispatcher: Dispatcher, pool: Pool, *, name: str, tries: int, patience: float) -> None:
        self.dispatcher = dispatcher
        self.pool = pool
        self.pacing = Pacing()
        self._tries = tries
        self._patience = patience
        self._start = b" HTTP/1.1\r\nhost: runner\r\n%b: %b\r\n" % (headers.GATEWAY, name.encode("ascii"))

    async def forward(self, request: Request, entry: Entry) -> None:
        """Answers the request through a runner of this Model.

        Raises ApiError or ModelGone while nothing was sent to the client; every later failure is answered here.
        """
        message = [_head_of(request, len(request.body), self._start), request.body]
        request.body = b""  # so that nothing keeps it when it has been sent
        await self.carry(request, self.dispatcher.enter(entry), message, connection=None)

    def express(self, request: Request, entry: Entry, body: bytes, *, exchange: Exchange, resume: Resume) -> bool:
        """Sends the request at once if a runner is free and an idle connection to it is there; else does nothing.

        Raises ApiError for a header that must not be sent on.
        """
        message = [_head_of(request, len(body), self._start), body]
        ticket = self.dispatcher.enter_at_once(entry)
        if ticket is None or ticket.place is None:
            return False
        endpoint = ticket.place.endpoint
        connection = None if ticket.place.doubted else self.pool.take(endpoint.host, endpoint.port)
        if connection is None:
            self.dispatcher.close(ticket)
            return False
        connection.send([b"".join(message)])  # as one piece, which costs the event loop less than two
        Express(
            self,
            request,
            exchange,
            ticket=ticket,
            endpoint=endpoint,
            connection=connection,
            message=message,
            resume=resume,
        )
        return True

    async def carry(
        self, request: Request, ticket: Ticket, message: list[bytes], *, connection: Connection | None
    ) -> None:
        """Sees the request through. ``connection``: it was sent on it already."""
        record = request.exchange.record if request.exchange is not None else None
        if record is not None:
            record.ticket = ticket
        try:
            with Departure(request.receive, request.exchange):
                await self._run(request, ticket, message, sent=connection, record=record)
        finally:
            self.dispatcher.close(ticket)

    async def _run(
        self,
        request: Request,
        ticket: Ticket,
        message: list[bytes],
        *,
        sent: Connection | None,
        record: Record | None,
    ) -> None:
        trouble = _Trouble(self._tries, self._patience)
        while True:
            endpoint = await self.dispatcher.place(ticket)
            if record is not None:
                record.sent = True
            connection, sent = sent, None
            try:
                connection = await self._ask(ticket, endpoint, _with_wait(message, ticket), connection=connection)
            except NotBegun as error:
                if trouble.enough(error):
                    raise ApiError(500, RUNNER_STOPPED) from None
                self.dispatcher.back(ticket, doubt=True)
                continue
            except Silent:
                self.dispatcher.broke(ticket)
                raise ApiError(504, RUNNER_SILENT) from None
            except UpstreamError:
                self.dispatcher.broke(ticket)
                raise ApiError(500, RUNNER_STOPPED) from None
            if connection.status == 503 and any(name == headers.RETRY for name, _ in connection.headers):
                self.pool.put(endpoint.host, endpoint.port, connection)
                self.dispatcher.back(ticket, doubt=False)
                continue
            break
        self.dispatcher.answered(ticket)
        message.clear()
        request.let_go()
        try:
            await relay(request, connection, lambda: self.dispatcher.close(ticket), pacing=self.pacing)
        finally:
            if connection.broken:
                self.dispatcher.broke(ticket)
            self.pool.put(endpoint.host, endpoint.port, connection)

    async def _ask(
        self, ticket: Ticket, endpoint: Endpoint, message: list[bytes], *, connection: Connection | None
    ) -> Connection:
        """Sends the request, unless it is sent, and waits for the beginning of the answer. Raises UpstreamError."""
        if connection is None:
            connection = await self._connect(ticket, endpoint)
            connection.send(message)
        try:
            await connection.head()
        except BaseException:  # cancelled as well: the runner must see that nobody wants the answer
            connection.abort()
            raise
        return connection

    async def _connect(self, ticket: Ticket, endpoint: Endpoint) -> Connection:
        """An idle connection, or a new one, which alone proves that the runner is there. Raises Unreachable."""
        doubted = ticket.place is not None and ticket.place.doubted
        connection = None if doubted else self.pool.take(endpoint.host, endpoint.port)
        if connection is None:
            connection = await self.pool.connect(endpoint.host, endpoint.port)
            self.dispatcher.reached(ticket)
        return connection


class _Trouble:
    """Counts a request's failures, of which none was its own.

    A machine that vanished stays listed until the cluster has noticed, most of a minute later; meanwhile requests wait,
    as they do for a runner that loads. One whose connections are made and then reset is bad for some other reason.
    """

    def __init__(self, tries: int, patience: float) -> None:
        self._tries = tries
        self._patience = patience
        self._resets = 0
        self._since: float | None = None

    def enough(self, error: NotBegun) -> bool:
        if not isinstance(error, Unreachable):
            self._resets += 1
            return self._resets >= self._tries
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since >= self._patience


def _head_of(request: Request, length: int, start: bytes) -> bytes:
    """The request line and headers for the runner, framed anew. Raises ApiError 400 for a header that breaks it.

    ``start`` is the rest of the first line, and two headers.
    """
    dropped = _NOT_SENT_ON
    parts = [b"POST ", request.path.encode("ascii")]
    if request.query:
        parts += (b"?", request.query)
    parts.append(start)
    lines = 3
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


def _with_wait(message: list[bytes], ticket: Ticket) -> list[bytes]:
    """The request with how long it was held, which the runner counts as part of its own durations."""
    head, body = message
    held = max(0, round((time.time() - ticket.since) * 1e9))
    return [head.removesuffix(b"\r\n"), headers.QUEUED, b": %d\r\n\r\n" % held, body]


async def answer_error(request: Request, error: ApiError) -> None:
    """The error in the wire format of the path, with when to come again if that is known."""
    answer: Answer = error_answer(request.path, error.status, error.message, retry_after=error.retry_after)
    await send_answer(request, answer)


async def answer_shutdown(request: Request) -> None:
    """What a request gets that is still held when the drain ends, if its client reads."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await answer_error(request, ApiError(503, SHUTTING_DOWN, retry_after=1))
