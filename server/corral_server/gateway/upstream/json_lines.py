"""Follows JSON lines that another process streams over HTTP: runner status, the usage of peers.

- A stream that ends, sends something else than JSON objects, or no whole line for longer than ``read_timeout``, is
  opened again after a pause, which grows until a stream has lasted.
- The listener is called with every object, and with None whenever a stream has ended: the state of the other process is
  unknown then until the next line.
- Whatever one process sends, the streams of the others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

from corral_core.base.json_fields import JsonObject
from corral_core.base.json_log import error_location
from corral_core.base.received_json import parse_received_object
from corral_server.gateway import log
from corral_server.gateway.upstream.connection import RunnerConnection, UpstreamError
from corral_server.gateway.upstream.pool import dial
from corral_server.wire.headers import identity_line

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
"""Seconds before a stream is opened again."""
LASTING = 5.0
"""Seconds after which a stream counts as one that works: the pauses begin with the first one again."""
LINE_LIMIT = 1024 * 1024
_CONNECT_TIMEOUT = 5.0

OnObject = Callable[[JsonObject | None], None]
"""May raise ValueError for an object that it cannot use: the stream is opened again then."""


class Source(NamedTuple):
    """Where a stream is: host, port and path.

    ``model`` is the identity of the Model whose runner it is expected to be, empty if it is no runner. ``line_limit``
    is the number of bytes of one line that are accepted.
    """

    host: str
    port: int
    path: str
    model: str = ""
    line_limit: int = LINE_LIMIT

    @property
    def request(self) -> bytes:
        return b"GET %b HTTP/1.1\r\nhost: corral\r\n%b\r\n" % (self.path.encode("ascii"), identity_line(self.model))


class JsonLineStreams:
    """Follows the streams of any number of processes; ``on_object(id, object)`` is called on the event loop.

    Its owner calls ``close``.
    """

    def __init__(self, on_object: Callable[[str, JsonObject | None], None], *, read_timeout: float) -> None:
        self._on_object = on_object
        self._read_timeout = read_timeout
        self._tasks: dict[str, tuple[Source, asyncio.Task[None]]] = {}

    def follow(self, sources: Mapping[str, Source]) -> None:
        """Follow exactly these processes, by their ids; stop following all others."""
        for name, (source, task) in list(self._tasks.items()):
            if sources.get(name) != source:
                task.cancel()
                del self._tasks[name]
        for name, source in sources.items():
            if name not in self._tasks:
                task = asyncio.create_task(self._follow(name, source), name=f"stream of {name}")
                self._tasks[name] = (source, task)

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, name: str, source: Source) -> None:
        def on_object(value: JsonObject | None) -> None:
            self._on_object(name, value)

        await follow_json_lines(source, on_object, read_timeout=self._read_timeout)


async def follow_json_lines(
    source: Source, on_object: OnObject, *, read_timeout: float, longest_pause: float = LONGEST_PAUSE
) -> None:
    """Call ``on_object`` with every object until cancelled. ``read_timeout`` and ``longest_pause`` are in seconds."""
    loop = asyncio.get_running_loop()
    pause, invalid = FIRST_PAUSE, False
    while True:
        started = loop.time()
        try:
            await _follow_once(source, on_object, read_timeout=read_timeout)
        except (OSError, UpstreamError):
            pass  # not listening yet, silent, or gone
        except ValueError as error:
            if not invalid:
                log.event("stream_invalid", source=f"{source.host}:{source.port}", error=str(error)[:500])
            invalid = True  # only the first time, since every further stream may repeat it
        except Exception as error:
            fields = {"source": f"{source.host}:{source.port}", "error": error_location(error)}
            log.event("stream_failed", level=logging.ERROR, **fields)
        on_object(None)
        if loop.time() - started >= LASTING:
            pause = FIRST_PAUSE
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest_pause)


async def _follow_once(source: Source, on_object: OnObject, *, read_timeout: float) -> None:
    """Read one stream to its end. Raises OSError (TimeoutError included), UpstreamError, ValueError."""
    async with asyncio.timeout(_CONNECT_TIMEOUT):
        connection = await dial(RunnerConnection(), source.host, source.port)
    try:
        connection.send(source.request)
        async with asyncio.timeout(read_timeout):
            await connection.wait_for_head()
        if connection.status != 200:
            raise ValueError(f"the stream was answered {connection.status}")
        async for line in _lines(connection, source.line_limit, read_timeout):
            on_object(parse_received_object(line, limit=source.line_limit))
    finally:
        connection.abort()


async def _lines(connection: RunnerConnection, limit: int, timeout: float) -> AsyncIterator[bytes]:
    """Yield whole lines that are not empty, each within ``timeout`` seconds of the one before.

    Raises OSError, UpstreamError, and ValueError for a line above ``limit`` bytes.
    """
    rest = bytearray()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        async with asyncio.timeout_at(deadline):
            data = await connection.read()
        if not data:
            return
        rest += data
        if b"\n" in data:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            deadline = loop.time() + timeout
            for line in filter(None, lines):
                yield line
        if len(rest) > limit:
            raise ValueError("a line of a stream is too long")
