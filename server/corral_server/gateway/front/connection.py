"""One client's connection: parsing by httptools, one request at a time, those that were sent ahead wait their turn.

Invariants: nothing is read while READ_AHEAD bytes of a body or a pipelined request wait; a head is bounded in size; a
client that is too slow is told so and closed (patience.py); what cannot be parsed, or could be read in two ways, gets
one 400 and the connection closes. uvicorn's server owns the listening and the shutting down.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, cast

import httptools
import uvicorn
from uvicorn.server import ServerState

from corral_core.jsonlog import origin
from corral_server.gateway.front.ending import Ending
from corral_server.gateway.front.exchange import READ_AHEAD, Exchange
from corral_server.gateway.front.limits import AHEAD_LIMIT, DEFAULTS
from corral_server.gateway.front.patience import Patience
from corral_server.gateway.front.scope import scope_of
from corral_server.gateway.front.target import body_head, split_target

log = logging.getLogger(__name__)

_FAULT = "the application failed: %s"

_WATCHED: Final = frozenset((b"expect", b"transfer-encoding"))
_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}


class FrontConnection(Ending):
    """uvicorn makes one for each connection. ``choked`` is set while the client reads too slowly.

    ``write`` is the transport's own: it is called for every piece of every stream. Types that ``Ending`` declares are
    not said again: the compiled class would show the collector those objects twice.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app = config.loaded_app
        self._express: Callable[[Exchange], bool] | None = getattr(config.loaded_app, "express", None)
        self._fresh = None
        self._limits = getattr(config.loaded_app, "limits", DEFAULTS)
        counts: Counter[int] | None = getattr(config.loaded_app, "turned_away", None)
        self._turned_away = Counter() if counts is None else counts
        self._most_headers = self._limits.headers
        self._state = server_state
        self.loop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport = None
        self._patience = None
        self._lingers = None
        self.heard_at = 0.0
        self._target = b""
        self._head_size = 0
        self._measure = False
        self._reading = None
        self._current = None
        self._ahead: deque[Exchange] = deque()
        self._paused = False
        self._closing = self._winding_down = False
        self._deaf = False
        self._lost = False
        self._task: asyncio.Task[None] | None = None
        self._turn: asyncio.Future[None] | None = None
        self.write = _nowhere
        self.choked = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names only its own protocols
        self._peer = transport.get_extra_info("peername")
        self._own = transport.get_extra_info("sockname")
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.heard_at = self.loop.time()
        self._patience = Patience(self, self._limits, self.loop)
        if len(self._state.connections) > self._limits.connections:
            self._crowd_out()
        elif getattr(self._app, "draining", False):
            self.wind_down()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._deaf = self._lost = True
        if self._patience is not None:
            self._patience.stop()
            self._patience = None
        if self._lingers is not None:
            self._lingers.cancel()
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        for exchange in (self._current, self._reading):
            if exchange is not None:
                exchange.leave()
        self.resume_writing()
        self._ahead.clear()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        if self._deaf:
            return
        self._measure = self._head_size > 0 or len(data) > self._limits.head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
        else:
            self._begin_fresh()
            if self._reading is not None:
                self._read_partly(self._reading, len(data))

    def eof_received(self) -> bool:
        """The client sends no more. One that waits for a runner has left, as it looks to every server; what is being
        answered here is answered.
        """
        current = self._current
        if current is None or not current.complete or current.listener is not None or self._scheme == "https":
            return False
        self._deaf = current.half = True
        self._last_request()
        return True

    def pause_writing(self) -> None:
        self.choked = self.loop.create_future()
        if self._patience is not None:
            self._patience.choked_at = self.loop.time()

    def resume_writing(self) -> None:
        choked, self.choked = self.choked, None
        if choked is not None and not choked.done():
            choked.set_result(None)
        current = self._current
        if current is not None and current.listener is not None:
            current.listener.writable()

    # httptools

    def on_message_begin(self) -> None:
        if self._reading is None:
            self._reading = Exchange(self)
            self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        reading = self._reading
        if reading is None or reading.begun:
            return  # a trailer
        name = name.lower()
        reading.headers.append((name, value))
        if name in _WATCHED:
            self._watch(reading, name, value.lower())

    def on_headers_complete(self) -> None:
        reading, parser = self._reading, self._parser
        if reading is None or reading.begun:
            return
        self._head_size = -1
        version: str = parser.get_http_version()
        if version != "1.1":
            _check_old(version, reading)
        reading.begun = True
        method: bytes = parser.get_method()
        reading.method = _METHODS.get(method) or method.decode("ascii")
        reading.path, reading.query = split_target(self._target)
        reading.keep_alive = parser.should_keep_alive()
        if (self._measure or len(reading.headers) > self._most_headers) and self._unwelcome(reading, reading.path):
            return
        if self._closing or self._deaf:  # deaf: what came in the same piece before it was refused
            self._deaf = True
        elif self._current is None:
            self._current = self._fresh = reading  # begun when all that came with its head was read
        else:
            self._ahead.append(reading)
            if self._crowded:
                self.pause_reading()

    def on_body(self, body: bytes) -> None:
        reading = self._reading
        if reading is not None and not reading.finished:
            reading.feed(body)

    def on_message_complete(self) -> None:
        reading, self._reading = self._reading, None
        if reading is None:
            return
        reading.end()
        if reading.finished and not reading.keep_alive:
            self._close()

    # What the exchange calls

    def pause_reading(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    @property
    def _crowded(self) -> bool:
        ahead = self._ahead
        return len(ahead) > AHEAD_LIMIT or sum(exchange.fed for exchange in ahead) > READ_AHEAD

    def resume_reading(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing() and not self._crowded:
            self._paused = False
            self._transport.resume_reading()

    def finished(self, exchange: Exchange) -> None:
        """The response is written."""
        self._current = None
        if exchange.task is None:
            exchange.forget()
        self.heard_at = self.loop.time()
        if not exchange.keep_alive or self._closing:
            self._ahead.clear()
            if exchange.complete:
                self._close()
            else:
                self._linger()
        elif self._ahead:
            self._begin(self._ahead.popleft())
            self.resume_reading()
        elif self._paused:
            self.resume_reading()

    # uvicorn's server

    def shutdown(self) -> None:
        """The last request that has begun is answered, then the connection closes."""
        self._closing = True
        if self._current is None:
            self._close()
        else:
            self._last_request()
            if self._current.listener is not None:
                self._current.listener.draining()

    # Inside

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        try:
            express = self._express is not None and exchange.complete and self._express(exchange)
        except Exception as error:  # as in _answer
            self._failed(exchange, error)
        else:
            if not express:
                self.start(exchange)

    def start(self, exchange: Exchange) -> None:
        """Has the connection's task answer it."""
        if self._task is None:
            self._task = self.loop.create_task(self._run())
            self._state.tasks.add(self._task)
        exchange.task = self._task
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    async def _run(self) -> None:
        """Answers one exchange after the other. One task for the connection is cheaper than one for each request."""
        try:
            while True:
                exchange = self._current
                if exchange is not None and exchange.task is not None and not (self._lost and exchange.work is None):
                    await self._answer(exchange)  # what went ahead holds a slot, and gives it back however it ends
                elif self._lost:
                    return
                else:
                    self._turn = self.loop.create_future()
                    await self._turn
                    self._turn = None
        finally:
            if self._task is not None:
                self._state.tasks.discard(self._task)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            if exchange.work is not None:
                await exchange.work()
            else:
                scope = scope_of(exchange, scheme=self._scheme, client=self._peer, server=self._own)
                await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # one request's fault must not end the others of this connection's server
            log.error(_FAULT, origin(error))
        finally:
            if self._current is exchange:
                self._current = None
            exchange.forget()
            if not exchange.finished:
                self._unanswered(exchange)

    def _failed(self, exchange: Exchange, error: Exception) -> None:
        log.error(_FAULT, origin(error))
        if self._current is exchange:
            self._current = None
        if not exchange.finished:
            self._unanswered(exchange)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """An offer of another protocol, which is not spoken here: the request is answered as it is, as the last one.

        httptools took its body for the other protocol, so that a parser of its own reads it.
        """
        self._last_request()
        fresh = None if self._deaf else self._fresh
        if fresh is None or not (head := body_head(fresh.headers)):
            self._deaf = True
            self._begin_fresh()
            return
        fresh.complete = False
        self._reading, self._parser = fresh, httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _begin_fresh(self) -> None:
        fresh, self._fresh = self._fresh, None
        if fresh is not None and self._current is fresh:
            self._begin(fresh)

    def _watch(self, reading: Exchange, name: bytes, value: bytes) -> None:
        """Raises ValueError for a coding of the body other than ``chunked``: it would go on undecoded."""
        if name == b"expect":
            reading.expects = value == b"100-continue"
        elif value != b"chunked":
            raise ValueError(value)


def _check_old(version: str, reading: Exchange) -> None:
    """Raises ValueError for a version that is not spoken, and for a framing that HTTP/1.0 does not have."""
    if version != "1.0" or any(name == b"transfer-encoding" for name, _ in reading.headers):
        raise ValueError(version)
    reading.old, reading.expects = True, False  # such a client would take the 100 for its answer


def _nowhere(data: bytes) -> None: ...
