"""A runner's stand-in and a client for very many requests at once: one small protocol each, no coroutine for any.

The stand-in answers by the model in the request: ``quick`` gets a whole answer at once, as all do unless ``slow`` is
set; every other a line, and a last one when ``finish`` is called.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
LINE = b'{"message":{"content":" token"},"done":false}\n'
FIRST = b"%x\r\n%b\r\n" % (len(LINE), LINE)
END = b'{"done":true}\n'
LAST = b"%x\r\n%b\r\n0\r\n\r\n" % (len(END), END)
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n" + END[:-1]
DONE = b'"done":true}'


class Runner(asyncio.Protocol):
    """``running`` gets those whose stream has begun and not ended."""

    slow = False

    def __init__(self, running: set[Runner]) -> None:
        self._running = running
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, body = self._held.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return
        self._held = b""
        assert self._transport is not None
        if self.slow and b'"model":"quick"' not in body:
            self._running.add(self)
            self._transport.write(HEAD + FIRST)
        else:
            self._transport.write(WHOLE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._running.discard(self)

    def finish(self) -> None:
        self._running.discard(self)
        assert self._transport is not None
        self._transport.write(LAST)


class Asker(asyncio.Protocol):
    """One request. ``begun`` is done with the first bytes of its answer, ``ended`` with the last: whether it was whole
    and good.
    """

    def __init__(self, model: str) -> None:
        loop = asyncio.get_running_loop()
        body = b'{"model":"%b","messages":[{"role":"user","content":"Why is the sky blue?"}]}' % model.encode()
        self._request = b"POST /api/chat HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        self._answer = b""
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self.seconds = 0.0
        self._since = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._since = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self.begun.done():
            self.begun.set_result(None)
        if DONE in self._answer and not self.ended.done():
            self.seconds = time.perf_counter() - self._since
            self.ended.set_result(self._answer.startswith(b"HTTP/1.1 200"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                if future is self.ended:
                    self.ended.set_result(False)
                else:
                    self.begun.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
