"""HTTP server in threads whose responses are written byte by byte, so that it can misbehave in every way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Request:
    """Request as it arrived; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


Reply = Callable[[Request], Iterable[bytes]]
"""Yields the bytes of the response. The connection stays open after a response with ``keep-alive`` in its head."""


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Return a response that ends the connection; underscores in the names of ``headers`` become dashes."""
    defaults = {"Content_Length": str(len(body)), "Connection": "close"}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {**defaults, **headers}.items()]
    return "\r\n".join([f"HTTP/1.1 {status} Text", *lines, "", ""]).encode("latin-1") + body


def partial(content: bytes, request: Request, **headers: str) -> bytes:
    """Return the 206 response for a request's Range, or the whole content with status 200."""
    unit, _, text = request.headers.get("range", "").partition("=")
    if unit != "bytes":
        return response(200, content, **headers)
    first, _, last = text.partition("-")
    start, end = int(first), int(last) + 1 if last else len(content)
    end = min(end, len(content))
    if start >= end:
        return response(416, Content_Range=f"bytes */{len(content)}")
    return response(206, content[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(content)}", **headers)


@dataclass
class RawServer:
    """Serves ``reply`` on a loopback port; ``requests`` are those that arrived. ``released`` ends stalled replies."""

    reply: Reply
    address: str = "127.0.0.1"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> RawServer:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._listener = socket.create_server((self.address, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open: list[socket.socket] = []
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=5)

    def url(self, target: str = "/file", *, host: str = "") -> str:
        """Return the URL of a target; the path and the query are not checked."""
        return f"http://{host or self.address}:{self.port}{target}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as lines:
                while True:
                    request = _read_request(lines)
                    if request is None:
                        return
                    self.requests.append(request)
                    sent = b""
                    for part in self.reply(request):
                        connection.sendall(part)
                        sent = sent or part
                    if b"keep-alive" not in sent:
                        return
        except OSError:
            return  # the client has closed the connection


def _read_request(lines: BufferedReader) -> Request | None:
    words = lines.readline().decode("latin-1").split()
    if len(words) < 2:
        return None
    headers = {}
    while line := lines.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(words[0], words[1], headers, lines.read(int(headers.get("content-length", "0"))))
