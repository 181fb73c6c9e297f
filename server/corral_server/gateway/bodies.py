"""Requests' bodies: read whole within two bounds, one for each and one for all that are held at a time.

Images are in them, so a few dozen that wait for a model could take all the memory there is, and then every request
would be lost. A body counts until its request has been sent to a runner or answered. The last quarter of the room is
for small ones, so that large ones do not shut them out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from corral_core.metrics import Family, gauge
from corral_server.gateway.messages import Request
from corral_server.wire.errors import ApiError

SMALL = 64 * 1024
"""Bytes of a body that may take the last quarter of the room."""
_AGAIN = 5
"""Seconds after which a client that was refused may try again: somebody's body has left by then, or not."""
_NO_ROOM = "the gateway holds as many bytes of requests as it may, please try again"
_LIMIT_FILES = ("memory.max", "memory/memory.limit_in_bytes")


class Gone(Exception):
    """The client left before its request was complete."""


class Held:
    """The room that one request's body takes."""

    __slots__ = ("_bodies", "size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.size = 0

    def grow(self, size: int) -> None:
        """To so many bytes. Raises ApiError 503 when there is no room for them."""
        bodies = self._bodies
        room = bodies.room if size <= SMALL else bodies.room - bodies.room // 4
        if bodies.held + size - self.size > max(room, bodies.limit):
            raise ApiError(503, _NO_ROOM, retry_after=_AGAIN)
        bodies.held += size - self.size
        self.size = size

    def free(self) -> None:
        self._bodies.held -= self.size
        self.size = 0


class Bodies:
    """``limit`` bounds one body, ``room`` all together, both in bytes; ``held`` is what is held now."""

    def __init__(self, limit: int, room: int) -> None:
        self.limit = limit
        self.room = room
        self.held = 0

    async def read(self, request: Request) -> bytes:
        """All bytes of the body; ``request.held`` counts for them from now on.

        Raises ApiError 413 when it is too large, 503 when there is no room, Gone when the client leaves.
        """
        length = request.length
        if length.isdigit() and int(length[:19]) > self.limit:
            raise self._too_large()
        held = request.held = Held(self)
        message = await request.receive()
        pieces: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise Gone
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > self.limit:
                raise self._too_large()
            held.grow(size)
            if not message.get("more_body", False):
                return b"".join([*pieces, piece]) if pieces else piece
            pieces.append(piece)
            message = await request.receive()

    def families(self) -> Iterator[Family]:
        """How much room is taken."""
        yield gauge("corral_gateway_body_bytes", "Bytes of requests' bodies that are held.", [({}, self.held)])
        yield gauge("corral_gateway_body_limit_bytes", "Bytes of them that there may be.", [({}, self.room)])

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request body is larger than {self.limit} bytes")


def half_of_memory(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Half of the memory that this process may take: its container's, or the machine's."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in _LIMIT_FILES:
        try:
            text = (root / name).read_text().strip()
        except OSError:
            continue
        most = min(most, int(text)) if text.isdigit() else most
    return most // 2
