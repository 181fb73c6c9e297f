"""``/api/blobs``: files that clients upload before ``/api/create`` names them.

The body goes to the store as it arrives, so its size has no limit here, and its memory is that of a few pieces.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from corral_server.gateway.api.creation.request import NO_UPLOADS, parse_digest
from corral_server.gateway.auth.authenticator import CURRENT_KEY
from corral_server.gateway.http_server.exchange import Exchange
from corral_server.gateway.management.blobs import BlobRefused, DigestMismatch
from corral_server.gateway.management.management import Management
from corral_server.gateway.messages import Request, Response
from corral_server.wire.errors import ApiError

BLOBS: Final = "/api/blobs/"


class BlobsApi:
    """Without ``management``, or without its store of blobs, no blob exists and none is taken."""

    def __init__(self, management: Management | None, *, unmanaged: str) -> None:
        """``unmanaged`` is the error without management."""
        self._management = management
        self._unmanaged = unmanaged

    async def blob(self, request: Request) -> Response:
        """Tell whether a blob exists (HEAD), or store one: 201, or 200 if it is stored already. Raises ApiError."""
        text = request.path.removeprefix(BLOBS)
        digest = parse_digest(text)
        try:
            if request.method == "HEAD":
                return await self._head(digest)
            return await self._post(request, digest)
        except DigestMismatch as error:
            raise ApiError(400, str(DigestMismatch(text, error.got))) from None
        except BlobRefused as error:
            raise ApiError(error.status, str(error)) from None

    async def _head(self, digest: str) -> Response:
        blobs = self._management.blobs if self._management is not None else None
        known = blobs is not None and await blobs.has(digest)
        return Response(200 if known else 404, content_type=None)

    async def _post(self, request: Request, digest: str) -> Response:
        if self._management is None:
            raise ApiError(501, self._unmanaged)
        self._management.policy.namespace_of(CURRENT_KEY.get())
        blobs = self._management.blobs
        if blobs is None:
            raise ApiError(501, NO_UPLOADS)
        if await blobs.has(digest):
            return Response(200, content_type=None)
        await blobs.write(digest, _pieces(request.exchange))
        return Response(201, content_type=None)


async def _pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises ClientDisconnected."""
    while not exchange.at_eof:
        piece = await exchange.read()
        if piece:
            yield piece
