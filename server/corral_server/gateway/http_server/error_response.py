"""Error responses that the HTTP server itself sends; the connection closes after them."""

from __future__ import annotations

from corral_server.gateway.http_server.exchange import status_line
from corral_server.gateway.http_server.request_target import split_target
from corral_server.wire.errors import LLAMA_SERVER_PATHS, error_body

_API_PREFIXES = ("/api/", "/v1/")


def encode_error(status: int, text: str, *, target: bytes, prefix: str, retry_after: int | None = None) -> bytes:
    """Encode a whole error response in the format of the API that ``target`` belongs to, plain text outside of them.

    ``target`` is the request target as far as it is known, ``prefix`` the path in front of the APIs' paths.
    ``retry_after`` is in seconds.
    """
    path = split_target(target)[0].removeprefix(prefix) if target else ""
    if path.startswith(_API_PREFIXES) or path in LLAMA_SERVER_PATHS:
        content_type, body = b"application/json; charset=utf-8", error_body(path, status, text)
    else:
        content_type, body = b"text/plain; charset=utf-8", text.encode()
    retry = b"" if retry_after is None else b"retry-after: %d\r\n" % retry_after
    return b"%bcontent-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
        status_line(status),
        content_type,
        len(body),
        retry,
        body,
    )
