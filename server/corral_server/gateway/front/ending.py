"""How a client's connection ends before its time: a client that is too slow, too many, or makes no sense.

Each is told why in the wire format of its path, unless a response is under way: then that one is the last. What such a
client still sends is thrown away for a while, so that the end of the connection does not overtake the answer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

from uvicorn.server import ServerState

from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.front.limits import FRAMING, LINGER, SPARE, Limits
from corral_server.gateway.front.patience import Patience
from corral_server.gateway.front.refusal import refusal

PROBES = frozenset(("/healthz", "/readyz"))


class Ending(ABC):
    """What ``FrontConnection`` is made of beside the turns of its requests; it declares the state that both use."""

    choked: asyncio.Future[None] | None
    heard_at: float
    loop: asyncio.AbstractEventLoop
    write: Callable[[bytes], None]
    _transport: asyncio.Transport | None
    _state: ServerState
    _limits: Limits
    _turned_away: Counter[int]
    _most_headers: int
    _patience: Patience | None
    _lingers: asyncio.TimerHandle | None
    _target: bytes
    _head_size: int
    _measure: bool
    _reading: Exchange | None
    _current: Exchange | None
    _fresh: Exchange | None
    _paused: bool
    _closing: bool
    _winding_down: bool
    _deaf: bool

    @abstractmethod
    def resume_reading(self) -> None:
        """Bytes are taken from the client again."""

    @abstractmethod
    def _begin_fresh(self) -> None:
        """The request whose head has come gets its turn."""

    def _read_partly(self, reading: Exchange, size: int) -> None:
        """``size`` bytes came, and the request that they are of is not complete."""
        came = 0
        if self._patience is not None:
            came = self._patience.began(reading, "body" if reading.begun else "head", size)
        if self._deaf or reading.finished:
            return
        if reading.begun:
            if came > FRAMING * reading.fed + 2 * self._limits.head:
                self._refuse(400, "There is too much around the body of the request.")
            return
        self._head_size = self._head_size + size if self._head_size >= 0 else 0  # else another head ended among them
        if self._head_size > self._limits.head:
            self._refuse(431, "The head of the request is too large.")

    def _crowd_out(self) -> None:
        """There are too many connections: this one is told so, and probes are answered."""
        self._most_headers = -1
        if len(self._state.connections) > self._limits.connections + SPARE and self._transport is not None:
            self._transport.abort()

    def wind_down(self) -> None:
        """From now on each request is answered as the connection's last: its client's next goes to another gateway."""
        if self._most_headers >= 0:
            self._winding_down = True
            self._most_headers = -1

    def _unwelcome(self, reading: Exchange, path: str) -> bool:
        """Whether the request was refused, whose head is complete."""
        if self._winding_down:
            reading.keep_alive = False
        if self._most_headers >= 0 or self._winding_down:
            if len(reading.headers) > self._limits.headers:
                self._refuse(431, "The request has too many headers.")
            elif len(self._target) + sum(len(name) + len(value) for name, value in reading.headers) > self._limits.head:
                self._refuse(431, "The head of the request is too large.")
            else:
                return False
        elif path in PROBES:
            reading.keep_alive = False
            return False
        else:
            self._refuse(503, "the gateway has as many connections as it may, please try again")
        return True

    def _last_request(self) -> None:
        self._closing = True
        for exchange in (self._current, self._reading):
            if exchange is not None:
                exchange.keep_alive = False

    def _refuse(self, status: int, text: str) -> None:
        """Ends the connection with an error, unless a response is under way: then that one is the last."""
        self._deaf = True
        current = self._current
        if self._lingers is not None:
            self._close()
            return
        if current is not None and not (current is self._reading and not current.started):
            self._last_request()
            self._begin_fresh()
            return
        again = 1 if status == 503 else None
        self.write(refusal(status, text, target=self._target, prefix=self._limits.prefix, retry_after=again))
        self._fresh = None
        if current is None or current.record is None:
            self._turned_away[status] += 1
        if current is not None:
            current.refused(status)
            if current.task is None:
                self._current = None
        self._linger()

    def _unanswered(self, exchange: Exchange) -> None:
        """The application ended without a whole response: the client must not take what it has for one."""
        begun = exchange.started or exchange.gone
        exchange.refused(500)
        if begun:
            self._close()
        else:
            self._refuse(500, "Internal Server Error")

    def _linger(self) -> None:
        """Nothing more is written, and what still comes is thrown away, until the client has read the answer."""
        if self._lingers is None and self._transport is not None and not self._transport.is_closing():
            self.resume_reading()
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._lingers = self.loop.call_later(LINGER, self._close)

    def _close(self) -> None:
        self._deaf = True
        if self._transport is not None:
            self._transport.close()

    @property
    def stage(self) -> str:
        reading, current = self._reading, self._current
        if self._deaf:
            return "closing" if current is None else "busy"
        if reading is not None and (current is None or current is reading):
            if not reading.begun:
                return "head"
            return "busy" if self._paused else "body"
        return "idle" if current is None else "busy"

    def late(self, stage: str) -> None:
        """``stage`` is Patience's, or ``write`` when the client does not read."""
        if stage == "write" or (self._transport is not None and self._transport.is_closing()):
            self._abort()
        elif stage == "idle" or self._lingers is not None:
            self._close()
        elif stage == "head":
            self._refuse(408, "the head of the request took too long")
        elif stage == "body" and (self._current is None or not self._current.started):
            self._refuse(408, "the body of the request took too long")
        else:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
