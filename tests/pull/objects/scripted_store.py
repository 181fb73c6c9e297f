"""S3 server whose responses are scripted: failures, stalls and hostile answers that no real server gives on request."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.authority import KeyPair

HEADERS = {"ETag": '"v1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}


@dataclass(frozen=True, slots=True)
class Reply:
    """``length`` is the Content-Length if it is not that of the body; after the body the server waits or closes."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)
    length: int | None = None
    stall: bool = False


Script = Callable[[str, str, Mapping[str, str]], Reply]
"""Returns the reply to a method, a path with its query, and lower-case headers."""


def error(status: int, code: str, message: str = "") -> Reply:
    """Return an error as S3 writes it."""
    return Reply(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


@contextmanager
def scripted_store(script: Script, *, tls: KeyPair | None = None) -> Iterator[str]:
    """Yield the endpoint of a server that replies as the script says; with ``tls`` it is that of ``localhost``."""
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reply = script(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
                self.wfile.flush()
            if reply.stall:
                end.wait(60)
            self.close_connection = reply.length is not None

        do_HEAD = do_CONNECT = do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http{'s://localhost' if tls else '://127.0.0.1'}:{server.server_port}"
    finally:
        end.set()
        server.shutdown()
        thread.join()
        server.server_close()
