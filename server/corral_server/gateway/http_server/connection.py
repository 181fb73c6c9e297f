"""Server side of one client connection: an asyncio protocol, one exchange at a time, pipelined requests in a queue.

- The application runs in one task for each request. It is started when the request head is complete.
- Nothing is read while READ_AHEAD bytes of a body or PIPELINE_LIMIT requests are pending.
- A client that is too slow gets an error (timeouts.py). What cannot be parsed, or could be read in two ways, gets one
  400; then the connection closes. While a response is under way, that response is the last one instead.
- ``state`` only moves forward; states.py has the diagram.

uvicorn's server owns the listening sockets and the shutdown. Its own protocols cost more than everything else that the
gateway does for a request; this one does one write for head and body, and starts no timer for a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from typing import Protocol, cast

import uvicorn
from uvicorn.server import ServerState

from corral_core.base.json_log import error_location
from corral_server.gateway.http_server.error_response import encode_error
from corral_server.gateway.http_server.exchange import READ_AHEAD, Exchange
from corral_server.gateway.http_server.flow_control import FlowControl
from corral_server.gateway.http_server.limits import ERROR_CONNECTIONS, LINGER, PIPELINE_LIMIT, Limits
from corral_server.gateway.http_server.parser import RequestParser, RequestRejected
from corral_server.gateway.http_server.states import COMPLETE, HEAD, IDLE, ConnectionState
from corral_server.gateway.http_server.timeouts import ClientTimeouts, Phase

log = logging.getLogger(__name__)

PROBES = frozenset(("/healthz", "/readyz"))
"""Paths that are answered when there are too many connections."""


class Application(Protocol):
    """What the server needs of the application that it serves.

    ``draining``: each response is its connection's last. ``rejected_connections`` counts by status the connections
    that ended with an error before there was a request.
    """

    limits: Limits
    draining: bool
    rejected_connections: Counter[int]

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""


class ClientConnection:
    """uvicorn makes one for each connection; it is an asyncio protocol by its methods alone.

    A base class that is not compiled would keep this class from being compiled.
    """

    flow: FlowControl

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app: Application = config.loaded_app
        self._limits = self._app.limits
        self._server = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = RequestParser(self, self._limits)
        self.state = ConnectionState.OPEN
        self.last_received = self._loop.time()
        self._current: Exchange | None = None
        self._pipelined: deque[Exchange] = deque()
        self._over_capacity = False
        self._is_tls = False
        self._timeouts: ClientTimeouts | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        self.flow = FlowControl(self._transport, self._loop)
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._server.connections.add(self)  # type: ignore[arg-type]  # uvicorn names only its own protocols
        self._timeouts = ClientTimeouts(self, self._limits, self._loop)
        excess = len(self._server.connections) - self._limits.connections
        self._over_capacity = excess > 0
        if excess > ERROR_CONNECTIONS:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._advance(ConnectionState.CLOSED)
        if self._timeouts is not None:
            self._timeouts.stop()
            self._timeouts = None
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        for exchange in (self._current, self._parser.partial):
            if exchange is not None:
                exchange.disconnect()
        self.flow.resume_writing()
        self._pipelined.clear()

    def data_received(self, data: bytes) -> None:
        self.last_received = self._loop.time()
        if self.state is ConnectionState.DISCARDING or self.state is ConnectionState.CLOSED:
            return
        try:
            self._parser.feed(data)
            if self._parser.partial is not None:
                self._part_received(self._parser.partial, len(data))
        except RequestRejected as rejection:
            self._reject(rejection.status, rejection.text)

    def eof_received(self) -> bool:
        """Keep the transport open for a response that needs no runner; True means that it stays open.

        A client that half-closes while it waits for a runner counts as disconnected, as with most servers.
        """
        current = self._current
        if current is None or current.request_state is not COMPLETE or current.disconnect_scope is not None:
            return False
        if self._is_tls:
            return False
        current.half_closed = True
        self._last_exchange(ConnectionState.DISCARDING)
        return True

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    # RequestHandler

    def new_exchange(self) -> Exchange:
        return Exchange(self.flow, self._response_done)

    def request_started(self, exchange: Exchange) -> None:
        """Handle the request, or queue it behind the current one. Raises RequestRejected when over capacity."""
        if self._over_capacity:
            if exchange.path not in PROBES:
                raise RequestRejected(503, "the gateway has too many connections, please try again")
            exchange.keep_alive = False
        elif self._app.draining:
            exchange.keep_alive = False
        if self.state is not ConnectionState.OPEN:
            self._advance(ConnectionState.DISCARDING)
            exchange.disconnect()
        elif self._current is None:
            self._start(exchange)
        else:
            self._pipelined.append(exchange)
            self._limit_pipeline()

    def request_completed(self, exchange: Exchange) -> None:
        """Close a connection that only waited for the rest of this request."""
        if self.state is ConnectionState.LINGERING:
            self._close()

    def upgrade_ignored(self, exchange: Exchange, *, has_body: bool) -> bool:
        wanted = has_body and exchange is self._current and self.state < ConnectionState.DISCARDING
        self._last_exchange(ConnectionState.LAST_EXCHANGE if wanted else ConnectionState.DISCARDING)
        return wanted

    # uvicorn's server

    def shutdown(self) -> None:
        """Close after the current response, at once when there is none."""
        if self._current is None:
            self._close()
        else:
            self._last_exchange(ConnectionState.LAST_EXCHANGE)

    # MonitoredConnection

    @property
    def phase(self) -> Phase:
        current, partial = self._current, self._parser.partial
        if self.state >= ConnectionState.DISCARDING:
            return Phase.CLOSING if current is None else Phase.BUSY
        if partial is not None and (current is None or current is partial):
            if partial.request_state is HEAD:
                return Phase.HEAD
            return Phase.BUSY if self.flow.read_paused else Phase.BODY
        return Phase.IDLE if current is None else Phase.BUSY

    def timed_out(self, phase: Phase) -> None:
        if phase is Phase.WRITE or self._transport.is_closing():
            self._transport.abort()
        elif phase is Phase.IDLE or self._linger_timer is not None:
            self._close()
        elif phase is Phase.HEAD:
            self._reject(408, "the head of the request took too long")
        elif phase is Phase.BODY and (self._current is None or self._current.response_state is IDLE):
            self._reject(408, "the body of the request took too long")
        else:
            self._transport.abort()

    # Requests

    def _part_received(self, partial: Exchange, size: int) -> None:
        """``size`` bytes arrived, and this request is still incomplete. Raises RequestRejected."""
        if self._timeouts is None:
            return
        in_body = partial.request_state is not HEAD
        received = self._timeouts.part_received(partial, Phase.BODY if in_body else Phase.HEAD, size)
        if in_body and not partial.closed:
            self._parser.check_overhead(partial, received)

    def _limit_pipeline(self) -> None:
        """Pause reading while too many requests, or too many bytes of them, are pending."""
        pending = self._pipelined
        self.flow.pipeline_full = (
            len(pending) > PIPELINE_LIMIT or sum(exchange.bytes_received for exchange in pending) > READ_AHEAD
        )
        if self.flow.pipeline_full:
            self.flow.pause_reading()

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        exchange.task = task = self._loop.create_task(self._handle(exchange))
        self._server.tasks.add(task)

    async def _handle(self, exchange: Exchange) -> None:
        task = exchange.task
        try:
            if not exchange.closed:
                await self._app.handle(exchange)
        except Exception as error:  # a fault in one request must not end other requests
            log.error("the application failed: %s", error_location(error))
        finally:
            exchange.task = None  # a reference cycle otherwise
            if task is not None:
                self._server.tasks.discard(task)
            if self._current is exchange:
                self._current = None
                self._response_incomplete(exchange)

    def _response_done(self, exchange: Exchange) -> None:
        self._current = None
        self.last_received = self._loop.time()
        if not exchange.keep_alive or self.state is not ConnectionState.OPEN:
            self._pipelined.clear()
            if exchange.request_state is COMPLETE:
                self._close()
            else:
                self._linger()
            return
        if self._pipelined:
            self._start(self._pipelined.popleft())
            self._limit_pipeline()
        self.flow.resume_reading()

    def _response_incomplete(self, exchange: Exchange) -> None:
        """The application ended without a whole response: the client must not take what it got for one."""
        untouched = exchange.response_state is IDLE
        exchange.abort(500)
        if untouched:
            self._send_error(500, "Internal Server Error")
        elif self.state is not ConnectionState.LINGERING:
            self._close()

    # The end of the connection

    def _advance(self, state: ConnectionState) -> None:
        if state > self.state:
            self.state = state

    def _last_exchange(self, state: ConnectionState) -> None:
        """Make the current exchange the last one, and read its body or discard all input, as ``state`` says."""
        self._advance(state)
        for exchange in (self._current, self._parser.partial):
            if exchange is not None:
                exchange.keep_alive = False

    def _reject(self, status: int, text: str) -> None:
        """End the connection with an error, or after the response that is under way."""
        current = self._current
        if self.state is ConnectionState.LINGERING:
            self._close()
        elif current is not None and not (current is self._parser.partial and current.response_state is IDLE):
            self._last_exchange(ConnectionState.DISCARDING)
        else:
            if current is None or current.observer is None:
                self._app.rejected_connections[status] += 1
            if current is not None:
                current.abort(status)
            self._send_error(status, text)

    def _send_error(self, status: int, text: str) -> None:
        retry_after = 1 if status == 503 else None
        target, prefix = self._parser.target, self._limits.prefix
        self.flow.write(encode_error(status, text, target=target, prefix=prefix, retry_after=retry_after))
        self._linger()

    def _linger(self) -> None:
        """Shut down the sending side, and discard input until the client has had the time to read the response.

        Closing with unread input would reset the connection, and the reset could overtake the response.
        """
        if self.state < ConnectionState.LINGERING and not self._transport.is_closing():
            self._advance(ConnectionState.LINGERING)
            self.flow.pipeline_full = False
            self.flow.resume_reading()
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._linger_timer = self._loop.call_later(LINGER, self._close)

    def _close(self) -> None:
        self._advance(ConnectionState.CLOSED)
        self._transport.close()
