"""Server of plain files that may lack ranges, sizes, HEAD and versions."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.support.hub_server import Answer, QuietServer, ranged


@dataclass
class FileServer:
    """``files`` and ``redirects`` by path without the query; ``headers`` are sent with every file.

    ``status`` is the answer to every request, unless it is 0; ``head_status`` that to HEAD.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    status: int = 0
    head_status: int = 0
    seen: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        self.seen.append((method, path, headers))
        plain = path.partition("?")[0]
        if status := self.status or (self.head_status if method == "HEAD" else 0):
            return Answer(status)
        if plain in self.redirects:
            return Answer(302, {"Location": self.redirects[plain]})
        if plain not in self.files:
            return Answer(404)
        if not self.ranges:
            return Answer(200, self.headers, self.files[plain])
        made = ranged(self.files[plain], headers.get("range", ""), etag="")
        sent = {name: value for name, value in made.headers.items() if name != "ETag"}
        return Answer(made.status, {**sent, **self.headers}, made.body)


@contextmanager
def running_file_server() -> Iterator[FileServer]:
    """Run a server on a free port of the loopback interface."""
    files = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            self._send()

        def do_HEAD(self) -> None:
            self._send()

        def _send(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            made = files.answer(self.command, self.path, headers)
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            if files.lengths:
                self.send_header("Content-Length", str(len(made.body)))
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(made.body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Write no log."""

    server = QuietServer(("127.0.0.1", 0), Handler)
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
