"""Simulated runner on a real socket that can fail in every way a runner can.

It implements a minimal HTTP/1.1. A behaviour, an async function of the ``Call``, handles a request. The behaviours in
``script`` handle the first requests, one each; ``behaviour`` handles all further ones.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Call:
    """A received request, with methods that write its response."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await self.write(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    def reset(self) -> None:
        """Close the connection with a RST, as the kernel does for a process that exits with unread data."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """Close the connection with a FIN."""
        self.writer.close()

    async def wait_closed(self) -> None:
        """Wait until the peer closes the connection."""
        while await self.reader.read(65536):
            pass


Behaviour = Callable[[Call], Awaitable[None]]


def reply(status: int = 200, body: bytes = b'{"done":true}', **headers: str) -> Behaviour:
    """Return a behaviour that sends a complete response; ``_`` in a header's name stands for ``-``."""

    async def behave(call: Call) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await call.head(status, {"content-type": "application/json", **named, "content-length": str(len(body))})
        await call.write(body)

    return behave


def stream(chunks: Iterable[bytes], *, content_type: str = "application/x-ndjson") -> Behaviour:
    """Return a behaviour that sends a complete chunked response."""

    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": content_type, "transfer-encoding": "chunked"})
        for piece in chunks:
            await call.chunk(piece)
        await call.write(b"0\r\n\r\n")

    return behave


def refuse(reason: str = "loading") -> Behaviour:
    """Return a behaviour that rejects the request before it is processed."""
    return reply(503, b'{"error":"not now"}', corral_retry=reason)


async def reset_at_once(call: Call) -> None:
    call.reset()


async def close_at_once(call: Call) -> None:
    call.close()


@dataclass
class FakeUpstream:
    """``running`` is the number of requests in flight, ``max_running`` its maximum."""

    behaviour: Behaviour = field(default_factory=reply)
    script: deque[Behaviour] = field(default_factory=deque)
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    running: int = 0
    max_running: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing():
                call = await self._read(reader, writer)
                self.calls.append(call)
                behaviour = self.script.popleft() if self.script else self.behaviour
                self.running += 1
                self.max_running = max(self.max_running, self.running)
                try:
                    await behaviour(call)
                finally:
                    self.running -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = request.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Call(method, path, headers, body, reader, writer, number=len(self.calls))


@asynccontextmanager
async def fake_upstream(behaviour: Behaviour | None = None, *script: Behaviour) -> AsyncIterator[FakeUpstream]:
    """Run a simulated runner on a free loopback port."""
    upstream = FakeUpstream(behaviour or reply(), deque(script))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(upstream.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1024 * 1024)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
