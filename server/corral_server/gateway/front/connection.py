"""One client's connection: parsing by httptools, one request at a time, those that were sent ahead wait their turn.

Invariants: nothing is read while READ_AHEAD bytes of a body or a pipelined request wait; a head is bounded in size; a
client that sends nothing for too long is closed by one lazy timer for the connection, not one for each request; what
cannot be parsed gets one 400 and the connection closes. uvicorn's server owns the listening and the shutting down.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools
import uvicorn
from uvicorn.server import ServerState

from corral_server.gateway.front.exchange import Exchange, status_line
from corral_server.gateway.front.limits import AHEAD_LIMIT, HEAD_LIMIT, HEADER_COUNT, LINGER, SLOW_LIMIT
from corral_server.gateway.front.target import body_head, split_target

log = logging.getLogger(__name__)

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}


class FrontConnection(asyncio.Protocol):
    """uvicorn makes one for each connection. ``choked`` is set while the client reads too slowly.

    ``write`` is the transport's own: it is called for every piece of every stream.
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
        self._fresh: Exchange | None = None
        self._idle_limit = float(config.timeout_keep_alive)
        self._state = server_state
        self.loop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._target = b""
        self._head_size = 0
        self._reading: Exchange | None = None
        self._current: Exchange | None = None
        self._ahead: deque[Exchange] = deque()
        self._paused = False
        self._closing = False
        self._deaf = False
        self._lost = False
        self._task: asyncio.Task[None] | None = None
        self._turn: asyncio.Future[None] | None = None
        self.write: Callable[[bytes], None] = _nowhere
        self.choked: asyncio.Future[None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names only its own protocols
        self._peer = transport.get_extra_info("peername")
        self._own = transport.get_extra_info("sockname")
        self._scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self._heard_at = self.loop.time()
        self._timer = self.loop.call_later(min(self._idle_limit, SLOW_LIMIT), self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._deaf = self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        for exchange in (self._current, self._reading):
            if exchange is not None:
                exchange.leave()
        self.resume_writing()
        self._ahead.clear()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, b"Invalid HTTP request received.")
        else:
            self._begin_fresh()
            if self._reading is None or not self._reading.begun:
                self._head_size += len(data)
                if self._head_size > HEAD_LIMIT:
                    self._refuse(431, b"The head of the request is too large.")

    def pause_writing(self) -> None:
        self.choked = self.loop.create_future()

    def resume_writing(self) -> None:
        choked, self.choked = self.choked, None
        if choked is not None and not choked.done():
            choked.set_result(None)
        current = self._current
        if current is not None and current.on_writable is not None:
            current.on_writable()

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
        if name == b"expect":
            reading.expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        reading, parser = self._reading, self._parser
        if reading is None or reading.begun:
            return
        self._head_size = 0
        reading.begun = True
        version = parser.get_http_version()
        method = parser.get_method()
        path, query = split_target(self._target)
        reading.old = version == "1.0"
        reading.keep_alive = parser.should_keep_alive()
        reading.scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": _METHODS.get(method) or method.decode("ascii"),
            "scheme": self._scheme,
            "path": path,
            "raw_path": self._target,
            "query_string": query,
            "root_path": "",
            "headers": reading.headers,
            "client": self._peer,
            "server": self._own,
            "corral.exchange": reading,
        }
        if len(reading.headers) > HEADER_COUNT:
            self._refuse(431, b"The request has too many headers.")
        elif self._closing:
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
        return len(self._ahead) > AHEAD_LIMIT

    def resume_reading(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing() and not self._crowded:
            self._paused = False
            self._transport.resume_reading()

    def finished(self, exchange: Exchange) -> None:
        """The response is written."""
        self._state.total_requests += 1
        self._current = None
        if exchange.task is None:
            exchange.forget()
        self._heard_at = self.loop.time()
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
            if self._current.on_drain is not None:
                self._current.on_drain()

    # Inside

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        if self._express is None or not exchange.complete or not self._express(exchange):
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
            while not self._lost:
                exchange = self._current
                if exchange is None or exchange.task is None:
                    self._turn = self.loop.create_future()
                    await self._turn
                    self._turn = None
                else:
                    await self._answer(exchange)
        finally:
            if self._task is not None:
                self._state.tasks.discard(self._task)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            if exchange.work is not None:
                await exchange.work()
            else:
                await self._app(exchange.scope, exchange.receive, exchange.send)
        except Exception:  # one request's fault must not end the others of this connection's server
            log.exception("the application failed")
        finally:
            if self._current is exchange:
                self._current = None
            exchange.forget()
            if not exchange.finished and not exchange.gone:
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

    def _unanswered(self, exchange: Exchange) -> None:
        """The application ended without a whole response: the client must not take what it has for one."""
        if exchange.started:
            self._close()
            return
        self._refuse(500, b"Internal Server Error")

    def _last_request(self) -> None:
        self._closing = True
        for exchange in (self._current, self._reading):
            if exchange is not None:
                exchange.keep_alive = False

    def _refuse(self, status: int, text: bytes) -> None:
        """Ends the connection with a plain answer, unless a response is under way: then that one is the last."""
        self._deaf = True
        if self._current is not None and not (self._current is self._reading and not self._current.started):
            self._last_request()
            return
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
        self.write(status_line(status) + head + text)
        if self._current is not None:
            self._current.leave()
        self._close()

    def _linger(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.resume_reading()
        self._timer = self.loop.call_later(LINGER, self._close)

    def _close(self) -> None:
        self._deaf = True
        if self._transport is not None:
            self._transport.close()

    def _look(self) -> None:
        """Whether the client has been silent for too long; looked at now and then instead of timed exactly."""
        silent = self.loop.time() - self._heard_at
        waits_for_client = self._reading is not None and not self._paused
        limit = SLOW_LIMIT if waits_for_client or self._head_size else self._idle_limit
        if silent >= limit and (self._current is None or waits_for_client):
            self._close()
            return
        rest = limit - silent if self._current is None or waits_for_client else limit
        self._timer = self.loop.call_later(max(0.1, rest), self._look)


def _nowhere(data: bytes) -> None: ...
