"""HTTP servers whose responses a test writes, on free loopback ports and in threads of the test's process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

_MAX_BODY: Final = 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    """One request, for the function that answers it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), _MAX_BODY)
        self.server.answer(self, self.rfile.read(length))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a response; an underscore in a header's name is a hyphen."""
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


Answer = Callable[[Handler, bytes], None]
"""Answers a request with the given body by ``Handler.reply``."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer


@contextlib.contextmanager
def serve(answer: Answer) -> Iterator[str]:
    """Serve requests by ``answer`` and yield ``127.0.0.1:port``."""
    server = _Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
