"""Refusal of requests for another Model, before any of their body is read.

A gateway or the operator can hold an old address of a pod that this runner's pod has by now;
``corral_core.contracts.model_identity`` has the contract.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from corral_core.contracts.model_identity import MISDIRECTED, is_addressed_to
from corral_server.wire import headers
from corral_server.wire.errors import error_body

_TEXT = "this runner serves another model, please try again"


class OwnRequestsOnly:
    """ASGI middleware; ``identity`` is that of the runner's Model."""

    def __init__(self, app: ASGIApp, identity: str) -> None:
        self._app = app
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_own(scope):
            body = error_body(scope["path"], MISDIRECTED, _TEXT)
            refusal = Response(body, MISDIRECTED, headers={"connection": "close"}, media_type="application/json")
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_own(self, scope: Scope) -> bool:
        """Check every such header: a request with two of them has been tampered with."""
        values: list[bytes] = [value for name, value in scope["headers"] if name == headers.MODEL_IDENTITY]
        return all(is_addressed_to(value.decode("latin-1"), self._identity) for value in values)
