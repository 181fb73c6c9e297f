"""What a runner says of itself, followed over one HTTP stream for as long as it lives.

The stream is opened again whenever it breaks. A runner that is silent for three heartbeats cannot be asked: its
activity is None until it is heard again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from corral_core.activity import HEARTBEAT, Activity
from corral_server.gateway.upstream import Connection, UpstreamError

SILENCE = 3 * HEARTBEAT
PAUSE = 0.2
"""Seconds before the stream is opened again."""
_CONNECT_TIMEOUT = 5.0
_LINE_LIMIT = 64 * 1024
_REQUEST = b"GET /activity?watch=true HTTP/1.1\r\nhost: runner\r\n\r\n"


async def follow(port: int, heard: Callable[[Activity | None], None], *, silence: float = SILENCE) -> None:
    """Calls ``heard`` with every activity of the runner at this port of the loopback interface, until cancelled."""
    while True:
        with contextlib.suppress(OSError, UpstreamError, ValueError):  # not there yet, gone, or speaking nonsense
            await _stream(port, heard, silence)
        heard(None)
        await asyncio.sleep(PAUSE)


async def _stream(port: int, heard: Callable[[Activity | None], None], silence: float) -> None:
    """One stream to its end. Raises OSError (TimeoutError included), UpstreamError, ValueError."""
    async with asyncio.timeout(_CONNECT_TIMEOUT):
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    try:
        connection.send([_REQUEST])
        async with asyncio.timeout(silence):
            await connection.head()
        if connection.status != 200:
            raise ValueError(f"the runner answered {connection.status}")
        rest = b""
        while True:
            async with asyncio.timeout(silence):
                data = await connection.read()
            if not data:
                return
            rest = _take_lines(rest + data, heard)
    finally:
        connection.abort()


def _take_lines(data: bytes, heard: Callable[[Activity | None], None]) -> bytes:
    """Hands on every whole line; what is left is the beginning of the next."""
    *lines, rest = data.split(b"\n")
    for line in filter(None, lines):
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("a line of activity is no object")
        heard(Activity.from_json(value))
    if len(rest) > _LINE_LIMIT:
        raise ValueError("a line of activity is too long")
    return rest
