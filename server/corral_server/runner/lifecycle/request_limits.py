"""Limits of a request that its gateway sent, as a context variable; see ``wire.request_limits``."""

from __future__ import annotations

from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from corral_server.wire.request_limits import NO_REQUEST_LIMITS, RequestLimits, parse_request_limits

request_limits: ContextVar[RequestLimits] = ContextVar("request_limits", default=NO_REQUEST_LIMITS)


class ReadsRequestLimits:
    """ASGI middleware that sets the context variable."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request_limits.set(parse_request_limits(scope["headers"]))
        await self._app(scope, receive, send)
