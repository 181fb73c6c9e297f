"""Fuzzer of the gateway's HTTP protocols in one process, without sockets.

Invariants after every case:

- No exception or warning is logged.
- Every response is complete HTTP; a 5xx has its cause in the runner.
- The runner receives one correctly framed request at a time, without hop-by-hop headers.
- No connection, task, slot or pending request is left.

Without sockets a case takes a fraction of a millisecond.
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

from corral_server.gateway.api.forwarded import APIS
from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.http_server.connection import ClientConnection
from corral_server.gateway.http_server.timeouts import Phase
from corral_server.gateway.proxy.headers import REQUEST_HEADERS
from corral_server.gateway.server import uvicorn_config
from corral_server.gateway.upstream.connection import RunnerConnection
from tests.support.fuzz_inputs import fuzz_case
from tests.support.gateway import MemoryDirectory, entry

MAX_LOOP_TURNS = 2000
_REQUEST = re.compile(rb"(POST|GET) (/[!-~]*) HTTP/1\.1\r\n((?:[!-9;-~]+: ?[^\r\n\x00]*\r\n)*)\r\n")
_RESPONSE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*\r\n((?:[!-9;-~]+: [^\r\n\x00]*\r\n)*)\r\n")
_EXPECTED_5XX = (b"account unavailable", b"error signing out", b"Model resource")
"""Texts of the 5xx responses to well-formed requests for something that does not exist here."""
RESPONSE = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{"done":true}'
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\nconnection: x-gone\r\n"
    b"x-gone: 1\r\nkeep-alive: 5\r\n\r\n8\r\n{"
)
STREAM = (
    _STREAM_HEAD,
    b'"n":1}\n\r\n8\r\n{"n":2}\n\r\n',
    b"0\r\n\r\n",
)
TRUNCATED_RESPONSE = (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nshort", b"")
BAD_RESPONSES = (
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",),
    TRUNCATED_RESPONSE,
    (b"nonsense\r\n\r\n",),
    (STREAM[0], b""),
    (b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",),
    (b"",),
)


class InvariantViolated(AssertionError):
    """An invariant of the module docstring is violated."""


class _Socket:
    def setsockopt(self, *_: object) -> None: ...

    def getsockopt(self, *_: object) -> bytes:
        raise OSError("not a socket")


class _Transport:
    """The part of ``asyncio.Transport`` that both protocols use; ``close`` takes effect on the next loop turn."""

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
    """Transport of the runner connection: checks each request and responds to it."""

    def __init__(self, connection: RunnerConnection, fuzz: GatewayFuzzer) -> None:
        super().__init__(cast(asyncio.Protocol, connection))  # a protocol by its methods
        self.fuzz = fuzz

    def write(self, data: bytes) -> None:
        self.writelines([data])

    def writelines(self, data: list[bytes]) -> None:
        self.fuzz.forwarded += 1
        _check_request(b"".join(data))
        segments = self.fuzz.response(data)
        asyncio.get_running_loop().call_soon(self._deliver, segments)

    def _deliver(self, segments: tuple[bytes, ...]) -> None:
        if self.closed:
            return
        if segments[0]:
            self.protocol.data_received(segments[0])
        if not segments[0]:
            self.close()
        elif segments[1:]:
            asyncio.get_running_loop().call_soon(self._deliver, segments[1:])


@dataclass
class GatewayFuzzer:
    """``run(seed, number)`` runs one case; call it in a task, after ``start``."""

    forwarded: int = 0
    answered: int = 0
    rejected: int = 0
    bad_response: tuple[bytes, ...] | None = None
    problems: list[str] = field(default_factory=list)
    directory: MemoryDirectory = field(default_factory=lambda: MemoryDirectory.of(entry("tiny", 1)))

    def start(self) -> None:
        config = GatewayConfig(host="0.0.0.0", body_limit=20_000)
        self.gateway = Gateway(self.directory, config)
        self.config = uvicorn_config(self.gateway, config)
        self.config.load()
        self.state = ServerState()
        self.gateway._pool.dial = self._dial  # in place of a socket
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(repr(context)))
        self._log = _RecordingHandler(self.problems)
        logging.getLogger("corral_server").addHandler(self._log)

    async def close(self) -> None:
        logging.getLogger("corral_server").removeHandler(self._log)
        await self.gateway.close()

    async def _dial(self, connection: RunnerConnection, host: str, port: int) -> RunnerConnection:
        connection.connection_made(cast(asyncio.Transport, _RunnerTransport(connection, self)))
        return connection

    def response(self, data: list[bytes]) -> tuple[bytes, ...]:
        if data[0].startswith(b"GET "):
            return (b"HTTP/1.1 503 Not Now\r\ncontent-length: 0\r\n\r\n",)
        return self.bad_response or (STREAM if b"stream" in data[-1] else (RESPONSE,))

    def client(self) -> tuple[ClientConnection, _Transport]:
        """Open a client connection."""
        connection = ClientConnection(self.config, self.state, {}, asyncio.get_running_loop())
        client = _Transport(cast(asyncio.Protocol, connection))
        connection.connection_made(cast(asyncio.Transport, client))
        return connection, client

    async def wait_idle(self) -> None:
        """Wait until no work is left; raise InvariantViolated if some remains."""
        await self._run_until(self._is_idle)

    async def run(self, seed: int, number: int) -> None:
        """Run one case. Raises InvariantViolated."""
        rng = random.Random(number)
        self.bad_response = rng.choice(BAD_RESPONSES) if rng.random() < 0.02 else None
        connection, client = self.client()
        for segment in fuzz_case(seed, number):
            await self._run_until(lambda: not client.paused or client.closed)
            if client.closed:
                break
            connection.data_received(segment)
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        disconnects = (
            rng.random() < 0.2 or self.bad_response is not None
        )  # a second request would be pending until the runner recovers
        for _ in range(rng.randrange(20) if self.bad_response is not None else 0):
            await asyncio.sleep(0)
        if not disconnects:
            await self._run_until(lambda: connection.phase is not Phase.BUSY or client.closed)
        if not client.closed and not connection.eof_received():
            client.close()
        await self._run_until(lambda: not self.state.connections or not self.state.tasks)
        client.close()
        await self.wait_idle()
        self._check_responses(bytes(client.out), whole=not disconnects)
        if self.problems:
            raise InvariantViolated("; ".join(self.problems))
        if self.bad_response is not None:  # replace the runner instead of waiting for its recovery
            self.directory.change(endpoints=(Endpoint(id=f"runner-{number}", host="x", port=number, slots=4),))

    def _is_idle(self) -> bool:
        queue = self.gateway.dispatcher.queue
        idle = not (self.state.connections or self.state.tasks)
        return idle and not queue.slots_in_use("default/tiny") and not queue.pending

    async def _run_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(MAX_LOOP_TURNS):
            if condition():
                return
            await asyncio.sleep(0)
        queue = self.gateway.dispatcher.queue
        left = (len(self.state.connections), len(self.state.tasks), queue.slots_in_use("default/tiny"), queue.pending)
        raise InvariantViolated(f"connections, tasks, slots, pending requests left: {left}")

    def _check_responses(self, out: bytes, *, whole: bool) -> None:
        while out:
            found = _RESPONSE.match(out)
            if found is None:
                raise InvariantViolated(f"malformed response: {out[:200]!r}")
            status, head, out = int(found[1]), found[2].lower(), out[found.end() :]
            if status == 100:
                continue
            body, out = _body(head, out, whole=whole)
            self.answered += status < 400
            self.rejected += 400 <= status < 500
            if status >= 500 and self.bad_response is None and not any(text in body for text in _EXPECTED_5XX):
                raise InvariantViolated(f"{status}: {body[:200]!r}")
            if b"x-gone" in head or (b"keep-alive: 5" in head):
                raise InvariantViolated(f"hop-by-hop header forwarded: {head!r}")


class _RecordingHandler(logging.Handler):
    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        self._problems.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")


def _body(head: bytes, out: bytes, *, whole: bool) -> tuple[bytes, bytes]:
    """Split off the body of a response with this head. Raises InvariantViolated."""
    if b"transfer-encoding: chunked" in head:
        return _chunks(out, whole=whole)
    length = re.search(rb"(?:^|\n)content-length: ([0-9]+)\r\n", head)
    if length is None:
        return (out, b"") if b"connection: close" in head else (b"", out)
    size = int(length[1])
    if out[:9] == b"HTTP/1.1 " or not out:  # response to HEAD
        return b"", out
    if len(out) < size:
        raise InvariantViolated(f"a response of {len(out)} bytes instead of {size}")
    return out[:size], out[size:]


def _chunks(out: bytes, *, whole: bool) -> tuple[bytes, bytes]:
    body = b""
    while out:
        line, end, rest = out.partition(b"\r\n")
        size = int(line, 16)
        if not end or rest[size : size + 2] != b"\r\n":
            raise InvariantViolated(f"malformed chunk: {out[:100]!r}")
        body, out = body + rest[:size], rest[size + 2 :]
        if not size:
            return body, out
    if whole:
        raise InvariantViolated("chunked response without the last chunk")
    return body, out


def _check_request(data: bytes) -> None:
    """Raise InvariantViolated unless ``data`` is one complete request in the gateway's framing."""
    found = _REQUEST.match(data)
    if found is None:
        raise InvariantViolated(f"malformed request to the runner: {data[:300]!r}")
    if found[1] == b"GET":
        return
    path = found[2].partition(b"?")[0].decode()
    if path not in APIS:
        raise InvariantViolated(f"path {path} is not forwarded")
    lines = [line.partition(b":") for line in found[3].split(b"\r\n") if line]
    names = [name.lower() for name, _, _ in lines]
    lengths = [value.strip() for name, _, value in lines if name.lower() == b"content-length"]
    if lengths != [b"%d" % (len(data) - found.end())]:
        raise InvariantViolated(f"content-length {lengths} for a body of {len(data) - found.end()} bytes")
    own = [name for name in names if name.startswith(b"corral-") or name in (b"host", b"content-length")]
    duplicates = [name for name in own if own.count(name) > 1]
    unlisted = [name for name in names if name not in REQUEST_HEADERS and name not in own]
    if duplicates or unlisted:
        raise InvariantViolated(f"duplicate headers {duplicates}, headers that are not forwarded {unlisted}")
