"""Request bodies as handlers read them: within the memory limits, decompressed, with their top-level fields parsed."""

from __future__ import annotations

from collections.abc import Mapping

from corral_server.gateway.bodies.compression import decompress, is_compressed
from corral_server.gateway.bodies.json_body import parse_body
from corral_server.gateway.bodies.memory import BodyMemory, BodyReservation
from corral_server.gateway.bodies.top_level_fields import SMALL, read_object
from corral_server.gateway.messages import Request

_CONTENT_ENCODING = b"content-encoding"


class BodyReader:
    """``depth_limit`` bounds the nesting of JSON bodies."""

    def __init__(self, memory: BodyMemory, depth_limit: int) -> None:
        self._memory = memory
        self._depth_limit = depth_limit

    async def read(self, request: Request) -> bytes:
        """Read the body into ``request.body``, decompressed, and return it.

        Raises ApiError 400, 413 or 503, and ClientDisconnected.
        """
        reservation = request.reservation = BodyReservation(self._memory)
        exchange = request.exchange
        body = self._memory.read_arrived(exchange, reservation)
        if body is None:
            body = await self._memory.read(exchange, reservation, content_length=request.content_length)
        if request.content_encoding and is_compressed(request.path, request.content_encoding):
            body = decompress(body)
            reservation.grow(len(body))
            request.headers = [header for header in request.headers if header[0] != _CONTENT_ENCODING]
        request.body = body
        return body

    async def read_object(
        self, request: Request, kind: str, empty: str = "missing request body"
    ) -> Mapping[str, object]:
        """Read the body and return the fields of its object; see ``bodies.top_level_fields.read_object``."""
        body = await self.read(request)
        if len(body) <= SMALL:
            return parse_body(body, kind=kind, depth_limit=self._depth_limit, empty=empty)
        return await read_object(body, kind=kind, depth_limit=self._depth_limit, empty=empty)
