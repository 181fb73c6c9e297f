"""The short way for the common case: a free runner with an idle connection, and an answer that comes.

Such a request needs no coroutine: it goes to the runner as it comes in, and its answer, whole or as a stream, is
written as that comes in. Whenever there is anything else to it - a failure, a retry, a large answer in pieces, the end
of a drain - the rest is handed to the coroutine that serves all other requests, with the ticket and the connection as
they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from corral_server.gateway.directory import Endpoint
from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.listener import Listener
from corral_server.gateway.messages import Request
from corral_server.gateway.queue import Ticket
from corral_server.gateway.relay import SHUTTING_DOWN, Lines, response_headers
from corral_server.gateway.upstream import Connection

if TYPE_CHECKING:
    from corral_server.gateway.forward import Forwarder

Resume = Callable[[Request, Callable[[], Awaitable[None]]], None]
"""Has the rest of a request done by a coroutine."""
LIMIT = 64 * 1024
"""Bytes of a request's body: more is not worth parsing twice if it has to wait after all."""


class Express(Listener):
    """One request that was sent to a runner as ``message``. It may ``resume`` once; nothing more happens here then."""

    __slots__ = (
        "_attended",
        "_connection",
        "_ended",
        "_endpoint",
        "_exchange",
        "_forwarder",
        "_lines",
        "_message",
        "_request",
        "_resume",
        "_ticket",
    )

    def __init__(
        self,
        forwarder: Forwarder,
        request: Request,
        exchange: Exchange,
        *,
        ticket: Ticket,
        endpoint: Endpoint,
        connection: Connection,
        message: list[bytes],
        resume: Resume,
    ) -> None:
        self._forwarder = forwarder
        self._request = request
        self._exchange = exchange
        self._ticket = ticket
        self._endpoint = endpoint
        self._connection = connection
        self._message = message
        self._resume = resume
        self._lines: Lines | None = None
        self._attended = False
        self._ended: asyncio.Future[None] | None = None
        connection.listener = exchange.listener = self

    def heard(self) -> None:
        """The runner answered, or failed."""
        if self._lines is not None:
            self._flow(self._lines)
            return
        connection, exchange = self._connection, self._exchange
        if connection.broken or connection.status == 503 or exchange.choked:
            self._go_on()
            return
        headers, ending = response_headers(connection, self._request.extra)
        if connection.complete:
            body = connection.take()
            self._end()
            exchange.respond(connection.status, headers, body)
        elif ending is None:
            self._go_on()
        else:
            self._lines = Lines(ending)
            self._forwarder.dispatcher.answered(self._ticket)
            exchange.open(connection.status, headers)
            self._flow(self._lines)

    def writable(self) -> None:
        if self._lines is not None:
            self._flow(self._lines)

    def _flow(self, lines: Lines) -> None:
        """More of a stream came, or the client reads again. What the client cannot take yet stays where it is."""
        connection, exchange = self._connection, self._exchange
        if exchange.connection.choked is not None:
            if connection.broken:
                self._forwarder.dispatcher.broke(self._ticket)
            if connection.complete or connection.broken:
                self._forwarder.dispatcher.close(self._ticket)
            return
        piece = connection.take()
        if connection.complete:
            self._end()
            exchange.push(lines.rest(piece), last=True)
            return
        whole = lines.whole(piece) if piece else b""
        if connection.broken:
            self._end()
            self._request.broke()
            exchange.push(whole + lines.broken(self._request.path), last=True)
        elif whole:
            exchange.push(whole)
            self._forwarder.pacing.wrote(connection)

    def _end(self) -> None:
        """Nothing more comes from the runner, or is wanted of it."""
        connection, exchange, ticket = self._connection, self._exchange, self._ticket
        connection.listener = exchange.listener = None
        forwarder = self._forwarder
        if connection.broken:
            forwarder.dispatcher.broke(ticket)
        else:
            forwarder.dispatcher.answered(ticket)
        forwarder.dispatcher.close(ticket)
        forwarder.pool.put(self._endpoint.host, self._endpoint.port, connection)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _go_on(self) -> None:
        self._connection.listener = self._exchange.listener = None
        forwarder, request, ticket, message = self._forwarder, self._request, self._ticket, self._message
        connection = self._connection
        self._resume(request, lambda: forwarder.carry(request, ticket, message, connection=connection))

    def draining(self) -> None:
        """A stream is attended by a coroutine from now on, which can be told when time is up; others are handed on."""
        if self._lines is None:
            self._go_on()
        elif not self._attended:
            self._attended = True
            lines = self._lines
            self._exchange.go_on(lambda: self._until_end(lines))

    async def _until_end(self, lines: Lines) -> None:
        if self._exchange.gone or self._exchange.finished:
            return
        self._ended = asyncio.get_running_loop().create_future()
        try:
            await self._ended
        except asyncio.CancelledError:
            self._connection.abort()
            self._end()
            self._exchange.push(lines.broken(self._request.path, SHUTTING_DOWN), last=True)
            raise

    def left(self) -> None:
        """The client is gone: the runner notices that nobody wants the answer, and the slot is free."""
        self._connection.abort()
        self._end()
