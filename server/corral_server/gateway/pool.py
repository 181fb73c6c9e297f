"""Idle connections to runners, kept by address until they are wanted again or too old. No proxy from the environment is
ever used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from corral_server.gateway.upstream import Connection, Unreachable

Dial = Callable[[Connection, str, int], Awaitable[Connection]]


async def dial(connection: Connection, host: str, port: int) -> Connection:
    """Connects it. Raises OSError."""
    protocol = cast(asyncio.Protocol, connection)  # by its methods
    await asyncio.get_running_loop().create_connection(lambda: protocol, host, port)
    return connection


class Pool:
    """Idle connections by address, the one used last is taken first. ``dial`` connects new ones."""

    IDLE_LIMIT = 4.0
    """Seconds; shorter than the runner's own limit, so that the gateway is the one who closes."""

    def __init__(self, *, connect_timeout: float, make: Callable[[], Connection] = Connection) -> None:
        self._timeout = connect_timeout
        self._make = make
        self.dial: Dial = dial
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def get(self, host: str, port: int) -> Connection:
        """An idle connection or a new one. Raises Unreachable."""
        return self.take(host, port) or await self.connect(host, port)

    def take(self, host: str, port: int) -> Connection | None:
        """An idle connection, if there is one."""
        idle = self._idle.get((host, port))
        while idle:
            connection = idle.pop()
            if not connection.closed and connection.idle_since > connection.loop.time() - self.IDLE_LIMIT:
                return connection
            connection.abort()
        return None

    def put(self, host: str, port: int, connection: Connection) -> None:
        """Takes a connection back after its response ended; one that cannot be used again is closed."""
        if not connection.reusable:
            connection.abort()
            return
        connection.release()
        loop = connection.loop
        connection.idle_since = loop.time()
        self._idle.setdefault((host, port), []).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self.IDLE_LIMIT, self._sweep)

    def close(self) -> None:
        """Closes every idle connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    async def connect(self, host: str, port: int) -> Connection:
        """A new connection. Raises Unreachable."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self.dial(self._make(), host, port)
        except OSError as error:
            raise Unreachable(f"cannot connect to the runner at {host}:{port}: {error}") from error

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        horizon = loop.time() - self.IDLE_LIMIT
        for address, connections in list(self._idle.items()):
            kept = [item for item in connections if not item.closed and item.idle_since > horizon]
            for connection in connections:
                if connection not in kept:
                    connection.abort()
            if kept:
                self._idle[address] = kept
            else:
                del self._idle[address]
        if self._idle:
            self._sweeper = loop.call_later(self.IDLE_LIMIT, self._sweep)
