"""Registry with Ollama's protocol over real HTTP, with files of a test, whose downloads the test can hold up."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.ollama.image."
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_LONGEST_WAIT, _LIMIT_POLL = 60.0, 0.02
"""Seconds that a download waits for a higher limit, and between two looks at it."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class OllamaRegistry:
    """``port`` is its port at ``address``.

    ``limit`` is the number of bytes of blobs above a megabyte that it sends before it waits for ``go_on`` or a higher
    limit (``allow``); None sends all. ``requests`` are the methods and paths so far, ``ranges`` the start and end of
    each request for such a blob, ``sent`` the bytes of blobs.
    """

    port: int = 0
    address: str = "127.0.0.1"
    limit: int | None = None
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    sent: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        return f"{self.address}:{self.port}"

    def uri(self, name: str = "tiny", tag: str = "latest") -> str:
        return f"ollama://{self.host}/library/{name}:{tag}"

    def push(
        self, weights: bytes, name: str = "tiny", tag: str = "latest", **layers: str | bytes | Mapping[str, object]
    ) -> str:
        """Add a model; ``layers`` are its other layers by kind, such as ``system``. Return the weights' digest."""
        kinds = {"model": weights}
        for kind, value in layers.items():
            data = value if isinstance(value, str | bytes) else json.dumps(value)
            kinds[kind] = data if isinstance(data, bytes) else data.encode()
        config = json.dumps({"model_format": "gguf", "model_family": "llama"}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(config, CONFIG),
            "layers": [self._blob(data, LAYER + kind) for kind, data in kinds.items()],
        }
        self.manifests[f"/v2/library/{name}/manifests/{tag}"] = json.dumps(manifest).encode()
        return sha256(weights)

    def _blob(self, data: bytes, media_type: str) -> dict[str, object]:
        self.blobs[f"sha256:{sha256(data)}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data)}

    def find(self, path: str) -> tuple[bytes, str] | None:
        """Return the content of a path and its type."""
        if path in self.manifests:
            return self.manifests[path], MANIFEST
        if path in self.files:
            return self.files[path], "application/octet-stream"
        data = self.blobs.get(path.rpartition("/")[2]) if "/blobs/" in path else None
        return (data, "application/octet-stream") if data is not None else None

    def allow(self, count: int) -> None:
        """Send ``count`` more bytes of blobs above a megabyte, then wait."""
        with self.lock:
            self.go_on.clear()
            self.limit = self.sent + count

    @property
    def waits(self) -> bool:
        """Whether all bytes up to the limit are sent."""
        with self.lock:
            return self.limit is not None and self.sent >= self.limit

    def allowed(self, wanted: int, *, large: bool) -> int:
        """Return how many of the wanted bytes may be sent now; 0 as long as the limit is reached."""
        with self.lock:
            if not large or self.limit is None or self.go_on.is_set():
                self.sent += wanted
                return wanted
            count = max(0, min(wanted, self.limit - self.sent))
            self.sent += count
            return count


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: OllamaRegistry

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.registry.requests.append(f"{self.command} {self.path}")
        found = self.registry.find(self.path)
        if found is None:
            data, media_type = b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', "application/json"
        else:
            data, media_type = found
        asked = _RANGE.fullmatch(self.headers.get("range", "")) if found is not None else None
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1 if asked and asked[2] else len(data), len(data))
        self.send_response(404 if found is None else 206 if asked else 200)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(end - start))
        self.send_header("etag", f'"{sha256(data)[:16]}"')
        self.send_header("accept-ranges", "bytes")
        if asked:
            self.send_header("content-range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if body:
            large = len(data) > 1 << 20
            if large:
                self.registry.ranges.append((start, end))
            with contextlib.suppress(OSError):
                self._send(memoryview(data)[start:end], large=large)

    def _send(self, data: memoryview, *, large: bool) -> None:
        deadline = time.monotonic() + _LONGEST_WAIT
        while data:
            count = self.registry.allowed(min(len(data), 1 << 16), large=large)
            self.wfile.write(data[:count])
            data = data[count:]
            if count:
                deadline = time.monotonic() + _LONGEST_WAIT
            else:
                self.registry.go_on.wait(_LIMIT_POLL)
                if self._closed() or time.monotonic() > deadline:
                    return

    def _closed(self) -> bool:
        """Return whether the client has ended the connection."""
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that end their connections."""


@contextlib.contextmanager
def ollama_registry(port: int = 0, *, address: str = "127.0.0.1") -> Iterator[OllamaRegistry]:
    """Serve a registry at an address of this machine until the end of the block."""
    registry = OllamaRegistry(address=address)
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = _Server((address, port), handler)
    registry.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def padded_weights(path: Path, size: int) -> bytes:
    """Return a model with bytes after its tensors, so that its download takes a while."""
    data = path.read_bytes()
    return data + bytes(max(0, size - len(data)))
