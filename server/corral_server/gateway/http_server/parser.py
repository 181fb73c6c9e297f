"""Request parser of one connection, over httptools (llhttp), with the gateway's limits and framing rules.

- A head is bounded in size and in its number of headers (431).
- What cannot be parsed, or could be framed in two ways, is rejected (400) and nothing after it is parsed: transfer
  codings other than ``chunked``, transfer codings in HTTP/1.0, other HTTP versions (RFC 9112 sections 6.1 and 6.3).
- An offer to upgrade is ignored, which RFC 9110 section 7.8 allows; the request is the connection's last.
"""

from __future__ import annotations

from typing import Final, Protocol

import httptools

from corral_server.gateway.http_server.exchange import Exchange, Headers
from corral_server.gateway.http_server.limits import BODY_OVERHEAD, Limits
from corral_server.gateway.http_server.request_target import split_target
from corral_server.gateway.http_server.states import BODY, HEAD

_INVALID = "Invalid HTTP request received."
_HEAD_TOO_LARGE = "The head of the request is too large."
_FRAMING = (b"content-length", b"transfer-encoding")
_INSPECTED: Final = frozenset((b"expect", b"transfer-encoding"))
_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}


class RequestRejected(Exception):
    """The input is answered with ``status`` and ``text``, and the connection ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class RequestHandler(Protocol):
    """What the parser calls, in the order of the requests."""

    def new_exchange(self) -> Exchange:
        """The first byte of a request arrived."""

    def request_started(self, exchange: Exchange) -> None:
        """Its head is complete. Raises RequestRejected."""

    def request_completed(self, exchange: Exchange) -> None:
        """Its body is complete."""

    def upgrade_ignored(self, exchange: Exchange, *, has_body: bool) -> bool:
        """This request is the last one. Returns whether its body is wanted; what follows is discarded otherwise."""


class RequestParser:
    """``partial`` is the request of which only a part has arrived, ``target`` the newest request target."""

    def __init__(self, handler: RequestHandler, limits: Limits) -> None:
        self._handler = handler
        self._limits = limits
        self._http = httptools.HttpRequestParser(self)
        self.partial: Exchange | None = None
        self.target = b""
        self._head_size = 0
        self._head_completed = False
        self._check_head_size = False
        self._last: Exchange | None = None
        self._failed = False

    def feed(self, data: bytes) -> None:
        """Parse what arrived. Raises RequestRejected; input after that is discarded."""
        if self._failed:
            return
        try:
            self._parse(data)
        except RequestRejected:
            self._failed = True
            raise

    def _parse(self, data: bytes) -> None:
        self._check_head_size = self._head_size > 0 or len(data) > self._limits.head
        self._head_completed = False
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_upgrade_body(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            raise cause if isinstance(cause, RequestRejected) else RequestRejected(400, _INVALID) from None
        except httptools.HttpParserError:
            raise RequestRejected(400, _INVALID) from None
        self._last = None
        if self.partial is not None and self.partial.request_state is HEAD:
            self._head_size = 0 if self._head_completed else self._head_size + len(data)
            if self._head_size > self._limits.head:
                raise RequestRejected(431, _HEAD_TOO_LARGE)

    def check_overhead(self, exchange: Exchange, wire_bytes: int) -> None:
        """Raise RequestRejected when chunk extensions and trailers outweigh the body of this incomplete request."""
        if wire_bytes > BODY_OVERHEAD * exchange.bytes_received + 2 * self._limits.head:
            self._failed = True
            raise RequestRejected(400, "There is too much around the body of the request.")

    # httptools

    def on_message_begin(self) -> None:
        if self.partial is None:
            self.partial = self._handler.new_exchange()
            self.target = b""

    def on_url(self, url: bytes) -> None:
        if self.partial is not None and self.partial.request_state is HEAD:
            self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self.partial
        if exchange is None or exchange.request_state is not HEAD:
            return  # a trailer
        name = name.lower()
        exchange.headers.append((name, value))
        if name in _INSPECTED:
            self._inspect(exchange, name, value.lower())

    def on_headers_complete(self) -> None:
        exchange, http = self.partial, self._http
        if exchange is None or exchange.request_state is not HEAD:
            return
        self._head_size, self._head_completed = 0, True
        version: str = http.get_http_version()
        if version != "1.1":
            _check_version(version, exchange)
        method: bytes = http.get_method()
        exchange.method = _METHODS.get(method) or method.decode("ascii")
        exchange.path, exchange.query = split_target(self.target)
        exchange.keep_alive = http.should_keep_alive()
        exchange.request_state = BODY
        if len(exchange.headers) > self._limits.headers:
            raise RequestRejected(431, "The request has too many headers.")
        if self._check_head_size and self._size_of(exchange.headers) > self._limits.head:
            raise RequestRejected(431, _HEAD_TOO_LARGE)
        self._handler.request_started(exchange)

    def on_body(self, body: bytes) -> None:
        if self.partial is not None and not self.partial.closed:
            self.partial.feed_body(body)

    def on_message_complete(self) -> None:
        exchange, self.partial = self.partial, None
        if exchange is not None:
            self._last = exchange
            exchange.complete_request()
            self._handler.request_completed(exchange)

    # Internal

    def _inspect(self, exchange: Exchange, name: bytes, value: bytes) -> None:
        """Raise RequestRejected for a transfer coding that is not decoded here and would be forwarded encoded."""
        if name == b"expect":
            exchange.expects_continue = value == b"100-continue"
        elif value != b"chunked":
            raise RequestRejected(400, _INVALID)

    def _size_of(self, headers: Headers) -> int:
        return len(self.target) + sum(len(name) + len(value) for name, value in headers)

    def _parse_upgrade_body(self, rest: bytes) -> None:
        """Parse the body of a request that offers an upgrade; llhttp takes it for the other protocol."""
        exchange = self._last
        assert exchange is not None  # llhttp reports the request as complete before the upgrade
        lines = [name + b": " + value + b"\r\n" for name, value in exchange.headers if name in _FRAMING]
        if self._handler.upgrade_ignored(exchange, has_body=bool(lines)):
            exchange.request_state = BODY
            self.partial, self._http = exchange, httptools.HttpRequestParser(self)
            self._parse(b"".join((b"POST / HTTP/1.1\r\n", *lines, b"\r\n", rest)))


def _check_version(version: str, exchange: Exchange) -> None:
    """Raise RequestRejected for an HTTP version other than 1.x, and for a framing that HTTP/1.0 does not have."""
    if version != "1.0" or any(name == b"transfer-encoding" for name, _ in exchange.headers):
        raise RequestRejected(400, _INVALID)
    exchange.http_1_0 = True
    exchange.expects_continue = False  # such a client would take the 100 for its response
