"""The short way for the common case: a free runner with an idle connection, and a whole answer in one piece.

Such a request needs no coroutine: it goes to the runner as it comes in, and its answer is written as that comes in.
Whenever there is anything else to it - a stream, an answer in pieces, a failure, a retry, the end of a drain - the
rest is handed to the coroutine that serves all other requests, with the ticket and the connection as they are.
"""

from __future__ import annotations

from collections.abc import Callable

from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.messages import Request
from corral_server.gateway.queue import Ticket
from corral_server.gateway.relay import response_headers
from corral_server.gateway.routing.dispatch import Dispatcher
from corral_server.gateway.upstream import Connection, Pool

LIMIT = 64 * 1024
"""Bytes of a request's body: more is not worth parsing twice if it has to wait after all."""


class Express:
    """One request that was sent to a runner. ``hand_over`` is called at most once; nothing more happens here then."""

    __slots__ = ("_connection", "_dispatcher", "_exchange", "_hand_over", "_pool", "_request", "_ticket")

    def __init__(
        self,
        request: Request,
        exchange: Exchange,
        *,
        ticket: Ticket,
        connection: Connection,
        dispatcher: Dispatcher,
        pool: Pool,
        hand_over: Callable[[], None],
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._ticket = ticket
        self._connection = connection
        self._dispatcher = dispatcher
        self._pool = pool
        self._hand_over = hand_over
        connection.listener = self._heard
        exchange.on_leave = self._left
        exchange.on_drain = self._go_on

    def _heard(self) -> None:
        """The runner answered, or failed."""
        connection, exchange, ticket = self._connection, self._exchange, self._ticket
        place = ticket.place
        if not connection.complete or connection.status == 503 or place is None or exchange.choked:
            self._go_on()
            return
        exchange.on_leave = exchange.on_drain = None
        headers, _ = response_headers(connection, self._request.extra)
        body = connection.take()
        self._dispatcher.answered(ticket)
        self._dispatcher.close(ticket)
        self._pool.put(place.endpoint.host, place.endpoint.port, connection)
        exchange.respond(connection.status, headers, body)

    def _go_on(self) -> None:
        self._connection.listener = None
        self._exchange.on_leave = self._exchange.on_drain = None
        self._hand_over()

    def _left(self) -> None:
        """The client is gone: the runner notices that nobody wants the answer, and the slot is free."""
        self._connection.listener = None
        self._connection.abort()
        self._dispatcher.close(self._ticket)
