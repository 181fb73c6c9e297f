"""Requests and responses as the gateway's handlers see them, above the HTTP server's exchange."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import formatdate

from corral_server.gateway.bodies.memory import BodyReservation
from corral_server.gateway.http_server.exchange import Exchange, Headers
from corral_server.gateway.observability.request_metrics import RequestMetrics
from corral_server.wire.errors import error_body
from corral_server.wire.request_limits import NO_REQUEST_LIMITS

JSON_TYPE = b"application/json; charset=utf-8"
TEXT_TYPE = b"text/plain; charset=utf-8"


class Request:
    """A request whose head is complete.

    ``path`` is decoded and without the gateway's prefix. ``content_length``, ``content_encoding`` and ``connection``
    (all of its values) are request headers. ``response_headers`` are added to every response to this request. ``model``
    is the model's name as the client wrote it, ``model_name`` the canonical one that the runner gets; both are empty
    until they are known. ``namespace`` is the one that the API key is for, empty without one. ``num_ctx`` is the
    context length that the request asks for, 0 if for none. ``body`` is kept only while it is needed, ``reservation``
    is the memory that it takes. ``limits`` are those of the client's API key. ``metrics`` records the request for
    metrics, access log and traces; None for probes. ``stream_type`` is the media type of the stream that the request
    asks for, empty if for none. ``only_heartbeats``: the response has started, and holds nothing but heartbeats.
    """

    __slots__ = (
        "body",
        "connection",
        "content_encoding",
        "content_length",
        "exchange",
        "headers",
        "limits",
        "metrics",
        "model",
        "model_name",
        "namespace",
        "num_ctx",
        "only_heartbeats",
        "path",
        "reservation",
        "response_headers",
        "stream_type",
    )

    def __init__(self, exchange: Exchange, *, prefix: str = "") -> None:
        self.exchange = exchange
        self.path = without_prefix(prefix, exchange.path) if prefix else exchange.path
        self.headers = exchange.headers
        self.response_headers: Headers = []
        self.content_length = b""
        self.content_encoding = b""
        self.connection = b""
        self.model = ""
        self.model_name = ""
        self.namespace = ""
        self.num_ctx = 0
        self.body = b""
        self.reservation: BodyReservation | None = None
        self.limits = NO_REQUEST_LIMITS
        self.metrics: RequestMetrics | None = None
        self.stream_type = b""
        self.only_heartbeats = False

    @property
    def method(self) -> str:
        return self.exchange.method

    def release_body(self) -> None:
        """Drop the body and give its memory back."""
        self.body = b""
        if self.reservation is not None:
            self.reservation.release()

    def header(self, name: bytes) -> bytes:
        """Return the first value of this header, empty when there is none."""
        return next((value for key, value in self.headers if key == name), b"")

    def mark_incomplete(self) -> None:
        """Record that the response that has started ends too early."""
        if self.metrics is not None and not self.exchange.closed:
            self.metrics.incomplete = True


def without_prefix(prefix: str, path: str) -> str:
    """Return the path without ``prefix``, unchanged where it does not begin with it.

    ``prefix`` begins with a slash and does not end with one, or is empty.
    """
    if prefix and f"{path}/".startswith(f"{prefix}/"):
        return path[len(prefix) :] or "/"
    return path


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response."""

    status: int
    body: bytes = b""
    content_type: bytes | None = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(value: object) -> Response:
    return Response(200, to_json(value))


def to_json(value: object) -> bytes:
    """Encode as compact UTF-8 JSON; lone surrogates, which UTF-8 cannot carry, become ``?``."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def error_response(path: str, status: int, message: str, *, retry_after: int | None = None) -> Response:
    """Make an error in the format of the API that ``path`` belongs to; ``retry_after`` is in seconds."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if retry_after is not None:
        headers = ((b"retry-after", b"%d" % retry_after),)
    elif status == 401:
        headers = ((b"www-authenticate", b"Bearer"),)
    return Response(status, error_body(path, status, message), JSON_TYPE, headers)


async def send_response(request: Request, response: Response) -> None:
    """Send the response. For HEAD the exchange leaves the body out and keeps its length."""
    headers: Headers = [(b"date", formatdate(usegmt=True).encode()), *response.headers, *request.response_headers]
    if response.content_type is not None and (response.body or response.status == 200):
        headers.append((b"content-type", response.content_type))
    if response.status not in (204, 304):  # of a 304 it would be the length of the whole representation
        headers.append((b"content-length", b"%d" % len(response.body)))
    exchange = request.exchange
    await exchange.drain()
    exchange.start_response(response.status, headers)
    exchange.write(response.body, last=True)
