"""Limits of a client connection: sizes, timeouts and how many connections there may be."""

from __future__ import annotations

import resource
from dataclasses import dataclass

PIPELINE_LIMIT = 16
"""Pipelined requests that may be pending before reading pauses; a disconnect goes unnoticed while it is paused."""
LINGER = 5.0
"""Seconds for which the rest of a rejected request is discarded, so that the client can read the error."""
MIN_BODY_RATE = 1024
"""Bytes a second. A body that arrives more slowly times out, however regularly its pieces come."""
BODY_OVERHEAD = 8
"""Wire bytes accepted for each byte of a body, beside twice the size of a head. Chunks of one byte take six, trailers
come on top; more than that are chunk extensions or trailers, which are discarded unread.
"""
ERROR_CONNECTIONS = 64
"""Connections over the limit that still get an error response; beyond them a connection is closed without one."""
_CONNECTION_MEMORY = 32 * 1024
"""Bytes of memory for a client and the data in transit to it; a stream takes half of that."""
_TLS_MEMORY = 64 * 1024
"""Bytes that TLS adds. Measured: 52 KiB from the accepted connection on, 14 KiB more after the handshake."""
_RESERVED_FILES = 512
"""Open files that the gateway needs for itself: three internal servers (probes, metrics, peers) with 128 connections
each, error responses above the limit of connections, listeners, the API server.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes, times seconds. ``prefix`` is the path that clients may put before the paths of the API.

    ``head``, ``headers``: request line and headers, and how many of them. ``head_timeout``: from the first byte of a
    head to its last. ``body_timeout``: between two pieces of a body. ``idle_timeout``: between two requests.
    ``write_timeout``: how long a client may read nothing of its response. ``connections``: in total.
    """

    head: int = 64 * 1024
    headers: int = 200
    head_timeout: float = 30.0
    body_timeout: float = 60.0
    idle_timeout: float = 75.0
    write_timeout: float = 300.0
    connections: int = 1_000_000
    prefix: str = ""


DEFAULTS = Limits()


def connections_by_files() -> int:
    """Return how many clients the hard limit of open files allows; each may need a connection to a runner as well."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return DEFAULTS.connections
    return max(1, (hard - min(_RESERVED_FILES, hard // 2)) // 2)


def memory_per_connection(*, tls: bool) -> int:
    """Return the bytes of memory that a client takes."""
    return _CONNECTION_MEMORY + (_TLS_MEMORY if tls else 0)
