"""Which gateway sent a request, for as long as the request is answered.

Every gateway learns from the activity stream how many of the active requests are its own, and so how many slots the
others use. The name is kept beside the request, not handed from route to route: a context variable, which the tasks of
one request share and no other request sees.
"""

from __future__ import annotations

from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from corral_server.wire import headers

LONGEST = 253
"""Characters of a name that are kept: the longest name of a pod."""

origin: ContextVar[str] = ContextVar("origin", default="")
"""Empty when no gateway sent the request."""


class Origins:
    """ASGI middleware that sets ``origin``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            origin.set(_named(scope))
        await self._app(scope, receive, send)


def _named(scope: Scope) -> str:
    value: bytes = next((value for name, value in scope["headers"] if name == headers.GATEWAY), b"")
    return value.decode("latin-1")[:LONGEST]
