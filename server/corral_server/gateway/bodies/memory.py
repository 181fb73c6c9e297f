"""Request bodies in memory: read whole, within a limit for each and a limit for all that are held at a time.

Bodies hold images, so a few dozen pending requests could take all memory, and every request would be lost. A body
counts until its request has been sent to a runner or answered. The last quarter of the memory is reserved for small
bodies, so that large ones do not shut them out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from corral_core.base.exposition import Metric, gauge
from corral_server.gateway.http_server.exchange import Exchange, append_piece
from corral_server.gateway.http_server.states import COMPLETE
from corral_server.system.cgroup_memory import container_memory
from corral_server.system.cgroups import ROOT, SELF
from corral_server.wire.errors import ApiError

SMALL_BODY = 64 * 1024
"""Bytes of a body that may use the last quarter of the memory."""
OWN_MEMORY = 256 * 1024 * 1024
"""Bytes for the process itself, or half of the memory if that is less. Measured: 75 MiB after its start, 64 MiB more
while the largest body is joined, 80 MiB while the metrics of a thousand Models are encoded.
"""
_RETRY_AFTER = 5
"""Seconds after which a rejected client may try again."""
_NO_MEMORY = "the gateway holds as many bytes of request bodies as it may, please try again"


class BodyReservation:
    """The memory that one request's body takes, in bytes."""

    __slots__ = ("_memory", "size")

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.size = 0

    def grow(self, size: int) -> None:
        """Raise the reservation to ``size`` bytes. Raises ApiError 503 when the memory is used up."""
        memory = self._memory
        total = memory.total if size <= SMALL_BODY else memory.total - memory.total // 4
        if memory.used + size - self.size > max(total, memory.body_limit):
            raise ApiError(503, _NO_MEMORY, retry_after=_RETRY_AFTER)
        memory.used += size - self.size
        self.size = size

    def release(self) -> None:
        """Give the memory back; calling it again has no effect."""
        self._memory.used -= self.size
        self.size = 0


class BodyMemory:
    """``body_limit`` bounds one body, ``total`` all bodies that are held, ``used`` is their size now; all in bytes."""

    def __init__(self, body_limit: int, total: int) -> None:
        self.body_limit = body_limit
        self.total = max(total, body_limit)
        self.used = 0

    def read_arrived(self, exchange: Exchange, reservation: BodyReservation) -> bytes | None:
        """Read a body that has arrived as a whole, as most do; None if it has not. Raises ApiError as ``read`` does."""
        if exchange.request_state is not COMPLETE:
            return None
        body = exchange.read_buffered()
        if len(body) > self.body_limit:
            raise self._too_large()
        reservation.grow(len(body))
        return body

    async def read(self, exchange: Exchange, reservation: BodyReservation, *, content_length: bytes) -> bytes:
        """Read the whole body of a request; ``reservation`` accounts for it.

        Raises ApiError 413 when it is too large, 503 when the memory is used up, and ClientDisconnected.
        """
        if content_length.isdigit() and int(content_length[:19]) > self.body_limit:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = await exchange.read()
            size += len(piece)
            if size > self.body_limit:
                raise self._too_large()
            reservation.grow(size)
            if exchange.at_eof:
                return b"".join([*pieces, piece]) if pieces else piece
            append_piece(pieces, piece)

    def families(self) -> Iterator[Metric]:
        """Metrics of the memory in use."""
        yield gauge("corral_gateway_buffered_body_bytes", "Request body bytes held in memory.", [({}, self.used)])
        yield gauge(
            "corral_gateway_buffered_body_limit_bytes", "Maximum request body bytes held in memory.", [({}, self.total)]
        )

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request body is larger than {self.body_limit} bytes")


def available_memory(root: Path = ROOT, membership: Path = SELF) -> int:
    """Return the bytes of memory that this process may take: its container's, or the machine's."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    container = container_memory(root, membership)
    return min(machine, container.limit if container is not None else machine)


def memory_for_clients(root: Path = ROOT, membership: Path = SELF) -> int:
    """Return the bytes that bodies and connections may take together, each a half; the rest is the process's own."""
    available = available_memory(root, membership)
    return available - min(OWN_MEMORY, available // 2)
