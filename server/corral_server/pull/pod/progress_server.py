"""HTTP server of a puller: its progress, for the operator (``corral_core.contracts.pull_status``).

- ``GET /progress``: one status; with ``?watch=true`` one JSON line when it changes, and a heartbeat.
- ``GET /healthz``: 200.
- A request that names another Model (``corral_core.contracts.model_identity``) is answered 421.
- At most ``MAX_CONNECTIONS`` connections; a further one is closed. A client that does not read is disconnected.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from corral_core.contracts.model_identity import IDENTITY_HEADER, MISDIRECTED, is_addressed_to
from corral_core.contracts.pull_status import HEARTBEAT_INTERVAL, PullStatus

MAX_CONNECTIONS: Final = 16
_IO_TIMEOUT: Final = 10.0
"""Seconds in which a client must send its request, and read a line."""
_MIN_INTERVAL: Final = 0.5
"""Seconds between two lines of a stream."""


class CurrentStatus:
    """The present status of the pull; thread-safe."""

    def __init__(self, status: PullStatus) -> None:
        self._status = status
        self._changed = threading.Condition()
        self._closed = False

    def get(self) -> PullStatus:
        return self._status

    def set(self, status: PullStatus) -> None:
        with self._changed:
            self._status = status
            self._changed.notify_all()

    def close(self) -> None:
        """End all streams."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, before: PullStatus, timeout: float) -> PullStatus | None:
        """Wait for another status for at most ``timeout`` seconds and return the present one; None after ``close``."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._status != before, timeout)
            return None if self._closed else self._status

    def pause(self, seconds: float) -> None:
        """Wait, or return early after ``close``."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)


class ProgressServer:
    """Serves from construction until ``close``. Raises OSError if the address cannot be used."""

    def __init__(self, address: tuple[str, int], status: CurrentStatus, *, identity: str = "") -> None:
        self._status = status
        self._http = _Server(address, status, identity)
        self._thread = threading.Thread(target=self._http.serve_forever, name="progress", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def close(self) -> None:
        """End all streams and connections."""
        self._status.close()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], status: CurrentStatus, identity: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.status = status
        self.identity = identity
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that disconnects is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _IO_TIMEOUT
    protocol_version = "HTTP/1.0"  # the end of the connection ends a stream

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        header = self.headers.get(IDENTITY_HEADER)
        if header is not None and self.server.identity and not is_addressed_to(header, self.server.identity):
            self._answer(MISDIRECTED, {"error": "this is the puller of another Model"})
        elif url.path == "/healthz":
            self._answer(200, {"status": "ok"})
        elif url.path != "/progress":
            self._answer(404, {"error": "the paths are /progress and /healthz"})
        elif parse_qs(url.query, max_num_fields=10).get("watch") == ["true"]:
            self._stream()
        else:
            self._answer(200, self.server.status.get().to_json())

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""

    def _answer(self, status: int, body: Mapping[str, object]) -> None:
        data = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        current = self.server.status
        status: PullStatus | None = current.get()
        while status is not None:
            self.wfile.write(json.dumps(status.to_json()).encode() + b"\n")
            current.pause(_MIN_INTERVAL)
            status = current.wait(status, HEARTBEAT_INTERVAL - _MIN_INTERVAL)
