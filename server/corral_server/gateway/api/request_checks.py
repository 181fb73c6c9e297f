"""First checks of each request: the headers that the gateway interprets, the Host check and CORS."""

from __future__ import annotations

from collections.abc import Iterable

from corral_server.gateway.api.cors import FORBIDDEN, AllowedOrigins, host_allowed, is_loopback
from corral_server.gateway.messages import Request, Response, error_response


class RequestChecks:
    """``host`` is the address that the gateway listens on; ``origins`` are allowed beside the local ones.

    Raises InvalidSetting for an invalid origin.
    """

    def __init__(self, origins: Iterable[str], *, host: str) -> None:
        self._origins = AllowedOrigins(origins)
        self._checks_host = is_loopback(host)

    def check(self, request: Request) -> Response | None:
        """Read the interpreted headers into the request; return the response when the request ends here."""
        host: bytes | None = None
        origin = b""
        for name, value in request.headers:
            if name == b"host":
                if host is not None:
                    return error_response(request.path, 400, "too many Host headers")
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"content-length":
                request.content_length = value
            elif name == b"connection":
                request.connection = b",".join((request.connection, value)) if request.connection else value
            elif name == b"content-encoding":
                request.content_encoding = value
        if host is None:
            if not request.exchange.http_1_0:
                return error_response(request.path, 400, "missing required Host header")
            host = b""
        if origin:
            verdict = self._origins.check(request.method, origin, host)
            if isinstance(verdict, Response):
                return verdict
            request.response_headers = verdict
        if self._checks_host and not host_allowed(host):
            return FORBIDDEN
        return None
