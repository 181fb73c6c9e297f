"""What another process says of itself, one JSON object a line, followed over HTTP for as long as it is of interest.

A stream that ends, or is silent for too long, is opened again after a pause that grows while nothing is heard. Who
listens is told of every line, and of None whenever a stream has ended: nothing is known then until the next line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping

from corral_core.jsonfields import Json
from corral_server.gateway.pool import dial
from corral_server.gateway.upstream import Connection, UpstreamError

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
_CONNECT_TIMEOUT = 5.0
_LINE_LIMIT = 1024 * 1024

Heard = Callable[[Json | None], None]
"""May raise ValueError for a line that makes no sense: the stream is opened again then."""


class Streams:
    """Follows ``path`` of any number of processes; ``heard(id, line)`` is called on the event loop.

    ``close`` it in the end.
    """

    def __init__(self, path: str, heard: Callable[[str, Json | None], None], *, silence: float) -> None:
        self._path = path
        self._heard = heard
        self._silence = silence
        self._tasks: dict[str, tuple[tuple[str, int], asyncio.Task[None]]] = {}

    def follow(self, sources: Mapping[str, tuple[str, int]]) -> None:
        """The processes from now on: id to host and port. Nothing more is heard of one that is not among them."""
        for name, (address, task) in list(self._tasks.items()):
            if sources.get(name) != address:
                task.cancel()
                del self._tasks[name]
        for name, address in sources.items():
            if name not in self._tasks:
                self._tasks[name] = (
                    address,
                    asyncio.create_task(self._follow(name, *address), name=f"stream of {name}"),
                )

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, name: str, host: str, port: int) -> None:
        await follow(host, port, self._path, heard=lambda line: self._heard(name, line), silence=self._silence)


async def follow(
    host: str, port: int, path: str, *, heard: Heard, silence: float, longest_pause: float = LONGEST_PAUSE
) -> None:
    """Calls ``heard`` with every line, until cancelled. ``silence`` and ``longest_pause`` are in seconds."""
    pause = FIRST_PAUSE
    while True:
        lines = 0

        def count(line: Json | None) -> None:
            nonlocal lines
            heard(line)
            lines += 1

        with contextlib.suppress(OSError, UpstreamError, ValueError):  # not there yet, gone, or speaking nonsense
            await _stream(host, port, path, heard=count, silence=silence)
        heard(None)
        pause = FIRST_PAUSE if lines else min(pause * 2, longest_pause)
        await asyncio.sleep(pause)


async def _stream(host: str, port: int, path: str, *, heard: Heard, silence: float) -> None:
    """One stream to its end. Raises OSError (TimeoutError included), UpstreamError, ValueError."""
    async with asyncio.timeout(_CONNECT_TIMEOUT):
        connection = await dial(Connection(), host, port)
    try:
        connection.send([f"GET {path} HTTP/1.1\r\nhost: corral\r\n\r\n".encode("ascii")])
        async with asyncio.timeout(silence):
            await connection.head()
        if connection.status != 200:
            raise ValueError(f"the stream was answered {connection.status}")
        rest = b""
        while True:
            async with asyncio.timeout(silence):
                data = await connection.read()
            if not data:
                return
            rest = _take_lines(rest + data, heard)
    finally:
        connection.abort()


def _take_lines(data: bytes, heard: Heard) -> bytes:
    """Hands on every whole line; what is left is the beginning of the next."""
    *lines, rest = data.split(b"\n")
    for line in filter(None, lines):
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("a line of a stream is no object")
        heard(value)
    if len(rest) > _LINE_LIMIT:
        raise ValueError("a line of a stream is too long")
    return rest
