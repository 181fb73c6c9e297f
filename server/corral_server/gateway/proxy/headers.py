"""Headers that the gateway forwards, in both directions only those of a list; the request gets new framing.

- A runner belongs to the author of its Model, so it never sees the credentials, cookies and addresses of clients. The
  query of a request may hold a credential as well, and no runner reads it: it is not forwarded.
- A client trusts the gateway's host, so a runner sets no cookies, CORS or security headers for it.
"""

from __future__ import annotations

import time
from typing import Final

from corral_server.gateway.http_server.exchange import Headers
from corral_server.gateway.messages import Request
from corral_server.gateway.proxy.line_buffer import stream_delimiter
from corral_server.gateway.upstream.connection import RunnerConnection
from corral_server.wire import headers
from corral_server.wire.errors import ApiError
from corral_server.wire.request_limits import RequestLimits

REQUEST_HEADERS: Final = frozenset((b"accept", b"content-type", b"traceparent", b"tracestate", b"user-agent"))
"""Headers of clients that runners get, except those that ``Connection`` names (RFC 9110 section 7.6.1)."""
RESPONSE_HEADERS: Final = frozenset(
    (b"cache-control", b"content-length", b"content-type", headers.CONTEXT_LENGTH, b"date", b"retry-after")
)
"""Headers of runners that clients get, except those that ``Connection`` names."""
_LENGTH: Final = frozenset((b"content-length",))
_USUAL_CONNECTION: Final = frozenset((b"", b"keep-alive", b"close", b"Keep-Alive", b"Close"))
"""Values of ``Connection`` that name no other header."""


class RequestHead:
    """Encodes heads for one gateway; ``name`` is the name by which runners know it."""

    def __init__(self, name: str) -> None:
        self._start = b" HTTP/1.1\r\nhost: runner\r\n%b: %b\r\n" % (headers.GATEWAY, name.encode("ascii"))

    def encode(self, request: Request, length: int, *, limits: RequestLimits) -> bytes:
        """Encode the head without its last lines; see ``complete_head``. ``length`` is the body's.

        ``limits`` are those that the runner enforces.
        Raises ApiError 400 for a header that holds a line break.
        """
        allowed = REQUEST_HEADERS
        parts = [b"POST ", request.path.encode("ascii"), self._start]
        parts += (headers.MODEL_NAME, b": ", request.model_name.encode("ascii"), b"\r\n")
        lines = 5
        if request.connection not in _USUAL_CONNECTION:
            allowed = allowed - {token.strip().lower() for token in request.connection.split(b",")}
        for name, value in limits.headers():
            parts += (name, b": ", value, b"\r\n")
            lines += 1
        for name, value in request.headers:
            if name in allowed:
                parts += (name, b": ", value, b"\r\n")
                lines += 1
        parts.append(b"content-length: %d\r\n" % length)
        head = b"".join(parts)
        if head.count(b"\n") != lines or head.count(b"\r") != lines:
            raise ApiError(400, "a header of the request holds a line break")
        return head


def complete_head(head: bytes, arrived_at: float, *, model: str) -> bytes:
    """Complete the head with what depends on the runner and the moment.

    ``arrived_at`` (Unix seconds) gives how long the request was queued, which the runner adds to the durations that it
    reports. ``model`` is the identity of the Model whose runner the request is sent to.
    """
    queued = max(0, round((time.time() - arrived_at) * 1e9))
    return b"%b%b%b: %d\r\n\r\n" % (head, headers.identity_line(model), headers.QUEUED, queued)


def reported_prompt_tokens(connection: RunnerConnection) -> int:
    """Return the tokens of the prompt that a runner reports at the beginning of a stream, -1 if it does not."""
    for name, value in connection.headers:
        if name == headers.PROMPT_TOKENS and value.isdigit() and len(value) < 10:
            return int(value)
    return -1


def response_headers(connection: RunnerConnection, added: Headers) -> tuple[Headers, bytes | None]:
    """Return the headers for the client, and the delimiter of lines or events when the response is a stream.

    A stream loses the length that its runner announced: the error at its end would exceed it.
    """
    allowed = RESPONSE_HEADERS
    delimiter = None
    for name, value in connection.headers:
        if name == b"connection":
            allowed = allowed - {token.strip().lower() for token in value.split(b",")}
        elif name == b"content-type" and connection.status == 200:
            delimiter = stream_delimiter(value)
    if delimiter is not None:
        allowed = allowed - _LENGTH
    return [(name, value) for name, value in connection.headers if name in allowed] + added, delimiter
