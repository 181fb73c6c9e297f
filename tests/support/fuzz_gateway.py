"""The gateway's own protocols fuzzed inside one process: no sockets, so that a case costs a fraction of a millisecond.

What holds after every case, whatever was sent: nothing failed; every response is whole HTTP and none is a 5xx that
the runner is not to blame for; what the runner got is exactly one framed request at a time, with no header that ends
at the gateway; no connection, task, slot or place in the queue is left.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from uvicorn.server import ServerState

from corral_server.gateway.apis import APIS
from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory import Endpoint
from corral_server.gateway.front.connection import FrontConnection
from corral_server.gateway.relay import HOP_BY_HOP
from corral_server.gateway.serving import uvicorn_config
from corral_server.gateway.upstream import Connection
from tests.support.fuzz_inputs import case
from tests.support.gateway import MemoryDirectory, entry

TURNS = 2000
_REQUEST = re.compile(rb"(POST|GET) (/[!-~]*) HTTP/1\.1\r\n((?:[!-9;-~]+: ?[^\r\n\x00]*\r\n)*)\r\n")
_RESPONSE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*\r\n((?:[!-9;-~]+: [^\r\n\x00]*\r\n)*)\r\n")
_OURS = (b"account unavailable", b"Model resource")
"""What a well-formed request for a thing that does not exist here is told with a 5xx."""
ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{"done":true}'
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\nconnection: x-gone\r\n"
    b"x-gone: 1\r\nkeep-alive: 5\r\n\r\n8\r\n{"
)
STREAM = (
    _STREAM_HEAD,
    b'"n":1}\n\r\n8\r\n{"n":2}\n\r\n',
    b"0\r\n\r\n",
)
HALF_AN_ANSWER = (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nshort", b"")
BAD_ANSWERS = (
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",),
    HALF_AN_ANSWER,
    (b"nonsense\r\n\r\n",),
    (STREAM[0], b""),
    (b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",),
    (b"",),
)


class Wrong(AssertionError):
    """Something that must hold did not."""


class _Socket:
    def setsockopt(self, *_: object) -> None: ...

    def getsockopt(self, *_: object) -> bytes:
        raise OSError("this socket is none")


class _Transport:
    """As much of asyncio's as both sides use; what is closed ends on the loop's next turn."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.out = bytearray()
        self.closed = self.paused = False

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.out += data

    def writelines(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, **_: int) -> None: ...

    def get_extra_info(self, name: str) -> object:
        return _Socket() if name == "socket" else None


class _RunnerTransport(_Transport):
    """The runner's end: checks each request as it comes, and answers it."""

    def __init__(self, connection: Connection, fuzz: Fuzz) -> None:
        super().__init__(cast(asyncio.Protocol, connection))  # by its methods
        self.fuzz = fuzz

    def write(self, data: bytes) -> None:
        self.writelines([data])

    def writelines(self, data: list[bytes]) -> None:
        self.fuzz.begun += 1
        _check_request(b"".join(data))
        pieces = self.fuzz.answer(data)
        asyncio.get_running_loop().call_soon(self._say, pieces)

    def _say(self, pieces: tuple[bytes, ...]) -> None:
        if self.closed:
            return
        if pieces[0]:
            self.protocol.data_received(pieces[0])
        if not pieces[0]:
            self.close()
        elif pieces[1:]:
            asyncio.get_running_loop().call_soon(self._say, pieces[1:])


@dataclass
class Fuzz:
    """``run(seed, number)`` runs one case; call it on a loop's task, after ``start``."""

    begun: int = 0
    answered: int = 0
    refused: int = 0
    bad: tuple[bytes, ...] | None = None
    problems: list[str] = field(default_factory=list)
    directory: MemoryDirectory = field(default_factory=lambda: MemoryDirectory.of(entry("tiny", 1)))

    def start(self) -> None:
        settled = GatewayConfig(host="0.0.0.0", body_limit=20_000)
        self.gateway = Gateway(self.directory, settled)
        self.config = uvicorn_config(self.gateway, settled)
        self.config.load()
        self.state = ServerState()
        self.gateway._pool.dial = self._dial  # in place of a socket
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(repr(context)))
        self._log = _Noted(self.problems)
        logging.getLogger("corral_server").addHandler(self._log)

    def close(self) -> None:
        logging.getLogger("corral_server").removeHandler(self._log)
        self.gateway.close()

    async def _dial(self, connection: Connection, host: str, port: int) -> Connection:
        connection.connection_made(cast(asyncio.Transport, _RunnerTransport(connection, self)))
        return connection

    def answer(self, data: list[bytes]) -> tuple[bytes, ...]:
        if data[0].startswith(b"GET "):
            return (b"HTTP/1.1 503 Not Now\r\ncontent-length: 0\r\n\r\n",)
        return self.bad or (STREAM if b"stream" in data[-1] else (ANSWER,))

    def client(self) -> tuple[FrontConnection, _Transport]:
        """One more connection."""
        connection = FrontConnection(self.config, self.state, {}, asyncio.get_running_loop())
        client = _Transport(cast(asyncio.Protocol, connection))
        connection.connection_made(cast(asyncio.Transport, client))
        return connection, client

    async def until_settled(self) -> None:
        """Raises Wrong when something is left over."""
        await self._until(self._settled)

    async def run(self, seed: int, number: int) -> None:
        """Raises Wrong."""
        rng = random.Random(number)
        self.bad = rng.choice(BAD_ANSWERS) if rng.random() < 0.02 else None
        connection, client = self.client()
        for piece in case(seed, number):
            await self._until(lambda: not client.paused or client.closed)
            if client.closed:
                break
            connection.data_received(piece)
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        impatient = rng.random() < 0.2 or self.bad is not None  # a second request would wait until the runner is well
        for _ in range(rng.randrange(20) if self.bad is not None else 0):
            await asyncio.sleep(0)
        if not impatient:
            await self._until(lambda: connection.stage != "busy" or client.closed)
        if not client.closed and not connection.eof_received():
            client.close()
        await self._until(lambda: not self.state.connections or not self.state.tasks)
        client.close()
        await self.until_settled()
        self._check_responses(bytes(client.out), whole=not impatient)
        if self.problems:
            raise Wrong("; ".join(self.problems))
        if self.bad is not None:  # nobody waits for the runner to recover
            self.directory.change(endpoints=(Endpoint(id=f"runner-{number}", host="x", port=number, slots=4),))

    def _settled(self) -> bool:
        queue = self.gateway.dispatcher.queue
        idle = not (self.state.connections or self.state.tasks)
        return idle and not queue.in_use("default/tiny") and not queue.waiting

    async def _until(self, holds: Callable[[], bool]) -> None:
        for _ in range(TURNS):
            if holds():
                return
            await asyncio.sleep(0)
        queue = self.gateway.dispatcher.queue
        left = (len(self.state.connections), len(self.state.tasks), queue.in_use("default/tiny"), queue.waiting)
        raise Wrong(f"connections, tasks, slots, places in the queue that are left: {left}")

    def _check_responses(self, out: bytes, *, whole: bool) -> None:
        while out:
            found = _RESPONSE.match(out)
            if found is None:
                raise Wrong(f"no response: {out[:200]!r}")
            status, head, out = int(found[1]), found[2].lower(), out[found.end() :]
            if status == 100:
                continue
            body, out = _body(head, out, whole=whole)
            self.answered += status < 400
            self.refused += 400 <= status < 500
            if status >= 500 and self.bad is None and not any(text in body for text in _OURS):
                raise Wrong(f"{status}: {body[:200]!r}")
            if b"x-gone" in head or (b"keep-alive: 5" in head):
                raise Wrong(f"a header for one connection went on to the next: {head!r}")


class _Noted(logging.Handler):
    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        self._problems.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")


def _body(head: bytes, out: bytes, *, whole: bool) -> tuple[bytes, bytes]:
    """The body of a response with this head, and what follows it. Raises Wrong."""
    if b"transfer-encoding: chunked" in head:
        return _chunks(out, whole=whole)
    length = re.search(rb"(?:^|\n)content-length: ([0-9]+)\r\n", head)
    if length is None:
        return (out, b"") if b"connection: close" in head else (b"", out)
    size = int(length[1])
    if out[:9] == b"HTTP/1.1 " or not out:  # what HEAD gets
        return b"", out
    if len(out) < size:
        raise Wrong(f"a response of {len(out)} bytes instead of {size}")
    return out[:size], out[size:]


def _chunks(out: bytes, *, whole: bool) -> tuple[bytes, bytes]:
    body = b""
    while out:
        line, end, rest = out.partition(b"\r\n")
        size = int(line, 16)
        if not end or rest[size : size + 2] != b"\r\n":
            raise Wrong(f"no chunk: {out[:100]!r}")
        body, out = body + rest[:size], rest[size + 2 :]
        if not size:
            return body, out
    if whole:
        raise Wrong("a chunked response without an end")
    return body, out


def _check_request(data: bytes) -> None:
    """Raises Wrong unless it is one whole request as the gateway frames them."""
    found = _REQUEST.match(data)
    if found is None:
        raise Wrong(f"no request went to the runner: {data[:300]!r}")
    if found[1] == b"GET":
        return
    path = found[2].partition(b"?")[0].decode()
    if path not in APIS:
        raise Wrong(f"the runner has no {path}")
    lines = [line.partition(b":") for line in found[3].split(b"\r\n") if line]
    names = [name.lower() for name, _, _ in lines]
    lengths = [value.strip() for name, _, value in lines if name.lower() == b"content-length"]
    if lengths != [b"%d" % (len(data) - found.end())]:
        raise Wrong(f"lengths {lengths} of a body of {len(data) - found.end()} bytes")
    doubled = [name for name in (b"host", b"corral-gateway", b"corral-queued-ns") if names.count(name) > 1]
    kept = [name for name in names if name in HOP_BY_HOP or name == b"expect"]
    if doubled or kept:
        raise Wrong(f"headers that the runner must not see (twice): {doubled} {kept}")
