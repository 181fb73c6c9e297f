"""The first look at each request: the few headers that the gateway heeds, and whether its sender may call at all."""

from __future__ import annotations

from collections.abc import Iterable

from corral_server.gateway.cors import FORBIDDEN, Origins, host_allowed, is_loopback
from corral_server.gateway.messages import Answer, Request, error_answer


class Entrance:
    """``host`` is where the gateway listens; ``origins`` are those that may call beside the local ones.

    Raises InvalidSetting for an origin that makes no sense.
    """

    def __init__(self, origins: Iterable[str], *, host: str) -> None:
        self._origins = Origins(origins)
        self._checks_host = is_loopback(host)

    def admit(self, request: Request) -> Answer | None:
        """CORS and the Host check: the answer that ends the request here, if it does."""
        host: bytes | None = None
        origin = b""
        for name, value in request.headers:
            if name == b"host":
                if host is not None:
                    return error_answer(request.path, 400, "too many Host headers")
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"content-length":
                request.length = value
            elif name == b"connection":
                request.connection = b",".join((request.connection, value)) if request.connection else value
            elif name == b"content-encoding":
                request.encoding = value
        if host is None:
            if request.exchange is not None and not request.exchange.old:
                return error_answer(request.path, 400, "missing required Host header")
            host = b""
        if origin:
            verdict = self._origins.check(request.method, origin, host)
            if isinstance(verdict, Answer):
                return verdict
            request.extra = verdict
        if self._checks_host and not host_allowed(host):
            return FORBIDDEN
        return None
