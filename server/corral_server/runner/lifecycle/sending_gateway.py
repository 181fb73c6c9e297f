"""What the gateway that sent a request says of it, as context variables: its own name and the Model's.

The runner status has the number of active requests per gateway, from which each gateway computes how many slots the
other gateways use. The tasks of one request share the context variable; other requests do not see it.
"""

from __future__ import annotations

from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from corral_core.base.names import MAX_NAME_LENGTH as MAX_MODEL_NAME_LENGTH
from corral_server.runner.chat.gateway_model_name import gateway_model_name
from corral_server.wire import headers

MAX_NAME_LENGTH = 253
"""Maximum number of characters of a name that are kept: the longest name of a pod."""

sending_gateway: ContextVar[str] = ContextVar("sending_gateway", default="")
"""Empty when no gateway sent the request."""


class SendingGateway:
    """ASGI middleware that sets ``sending_gateway`` and ``gateway_model_name``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            sending_gateway.set(_header(scope, headers.GATEWAY)[:MAX_NAME_LENGTH])
            gateway_model_name.set(_header(scope, headers.MODEL_NAME)[:MAX_MODEL_NAME_LENGTH])
        await self._app(scope, receive, send)


def _header(scope: Scope, header: bytes) -> str:
    value: bytes = next((value for name, value in scope["headers"] if name == header), b"")
    return value.decode("latin-1")
