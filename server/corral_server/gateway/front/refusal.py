"""What a client is told whose request never became one: a whole response, after which its connection closes."""

from __future__ import annotations

from corral_server.gateway.front.exchange import status_line
from corral_server.gateway.front.target import split_target
from corral_server.wire.errors import error_body

_APIS = ("/api/", "/v1/")


def refusal(status: int, text: str, *, target: bytes, prefix: str, retry_after: int | None = None) -> bytes:
    """In the wire format of the path, as far as ``target`` tells it; as plain text when it names no API's."""
    path = split_target(target)[0].removeprefix(prefix) if target else ""
    if path.startswith(_APIS):
        kind, body = b"application/json; charset=utf-8", error_body(path, status, text)
    else:
        kind, body = b"text/plain; charset=utf-8", text.encode()
    again = b"" if retry_after is None else b"retry-after: %d\r\n" % retry_after
    return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
        status_line(status),
        kind,
        len(body),
        again,
        body,
    )
