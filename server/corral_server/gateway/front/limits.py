"""What one client may send, how long it may be silent, and how many may come, before a connection is closed."""

from __future__ import annotations

import resource
from dataclasses import dataclass

AHEAD_LIMIT = 16
"""Requests that may be sent ahead before reading stops; with reading, a client's departure goes unnoticed."""
LINGER = 5.0
"""Seconds in which the rest of a refused body is thrown away, so that the client can read why."""
SLOWEST_BODY = 1024
"""Bytes a second: a body that comes more slowly is late, however regularly something of it comes."""
FRAMING = 8
"""Bytes that may come for each byte of a body, beside a head's worth: chunks of one byte take six, trailers come on
top. More than that are extensions of chunks, or trailers, that nobody reads.
"""
SPARE = 64
"""Connections over the limit that are still told so; beyond them a connection is closed without a word."""
PER_CONNECTION = 32 * 1024
"""Bytes of memory for a client, and what is on its way to it; a stream takes half of that."""
_OWN_FILES = 128
"""Open files that the gateway needs for itself: listeners, the API server, the other gateways, metrics."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes, times seconds. ``prefix`` is what clients may put before the paths of the API.

    ``head``, ``headers``: request line and headers, and how many of them. ``head_timeout``: from the first byte of a
    head to its last. ``body_timeout``: between two pieces of a body. ``idle_timeout``: between two requests.
    ``write_timeout``: how long a client may take nothing of its answer. ``connections``: in all.
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
    """How many clients the hard limit of open files allows for: each may need a connection to a runner, too."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return DEFAULTS.connections
    return max(1, (hard - _OWN_FILES) // 2)
