"""Pool of idle connections to runners, by address. Proxy settings of the environment are never used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from corral_server.gateway.upstream.connection import RunnerConnection, Unreachable

Dial = Callable[[RunnerConnection, str, int], Awaitable[RunnerConnection]]


async def dial(connection: RunnerConnection, host: str, port: int) -> RunnerConnection:
    """Connect it. Raises OSError."""
    protocol = cast(asyncio.Protocol, connection)  # by its methods
    await asyncio.get_running_loop().create_connection(lambda: protocol, host, port)
    return connection


class ConnectionPool:
    """The connection that was used last is taken first. ``make`` makes a connection, ``dial`` connects it."""

    IDLE_LIMIT = 4.0
    """Seconds; shorter than the runner's own limit, so that the gateway closes first."""

    def __init__(self, *, connect_timeout: float, make: Callable[[], RunnerConnection] = RunnerConnection) -> None:
        self._timeout = connect_timeout
        self._make = make
        self.dial: Dial = dial
        self._idle: dict[tuple[str, int], list[RunnerConnection]] = {}
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def acquire(self, host: str, port: int) -> RunnerConnection:
        """Return an idle connection or a new one. Raises Unreachable."""
        return self.take_idle(host, port) or await self.connect(host, port)

    def take_idle(self, host: str, port: int) -> RunnerConnection | None:
        """Return an idle connection, None when there is none."""
        idle = self._idle.get((host, port))
        while idle:
            connection = idle.pop()
            if not connection.closed and connection.idle_since > connection.loop.time() - self.IDLE_LIMIT:
                return connection
            connection.abort()
        return None

    def release(self, host: str, port: int, connection: RunnerConnection) -> None:
        """Take a connection back after its response; one that cannot be used again is closed."""
        if not connection.reusable:
            connection.abort()
            return
        connection.release()
        loop = connection.loop
        connection.idle_since = loop.time()
        self._idle.setdefault((host, port), []).append(connection)
        if self._sweep_timer is None:
            self._sweep_timer = loop.call_later(self.IDLE_LIMIT, self._sweep)

    def close(self) -> None:
        """Close every idle connection."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    async def connect(self, host: str, port: int) -> RunnerConnection:
        """Return a new connection. Raises Unreachable."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self.dial(self._make(), host, port)
        except OSError as error:
            raise Unreachable(f"cannot connect to the runner at {host}:{port}: {error}") from error

    def _sweep(self) -> None:
        """Close the connections that have been idle for too long."""
        self._sweep_timer = None
        loop = asyncio.get_running_loop()
        horizon = loop.time() - self.IDLE_LIMIT
        for address, connections in list(self._idle.items()):
            kept = [connection for connection in connections if connection.idle_since > horizon]
            kept = [connection for connection in kept if not connection.closed]
            for connection in connections:
                if connection not in kept:
                    connection.abort()
            if kept:
                self._idle[address] = kept
            else:
                del self._idle[address]
        if self._idle:
            self._sweep_timer = loop.call_later(self.IDLE_LIMIT, self._sweep)
