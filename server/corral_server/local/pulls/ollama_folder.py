"""Models directory of Ollama as if it were a registry, so that a model in it is used without a network.

    manifests/<registry>/<namespace>/<name>/<tag>    manifest (``server/modelpath.go``)
    blobs/sha256-<hex>                               layers

Reads only. The resolver of ``ollama://`` sources checks a manifest here as it checks one of a registry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from corral_server.pull.errors import TransientError
from corral_server.pull.http_requests import RESPONSE_LIMIT, HttpResponse

_MANIFEST = re.compile(r"/v2/(?P<namespace>[^/]+)/(?P<name>[^/]+)/manifests/(?P<reference>[^/]+)")
_BLOB = re.compile(r"/v2/[^/]+/[^/]+/blobs/sha256:(?P<digest>[0-9a-f]{64})")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class OllamaFolder:
    """Implements ``HttpRequests`` over the folder: 404 for what is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit: int = RESPONSE_LIMIT,
        redirects: bool = True,
        named_by: str = "",
    ) -> HttpResponse:
        parts = urlsplit(url)
        path = self._path(parts.netloc, unquote(parts.path)) if method in ("GET", "HEAD") else None
        if path is None or not path.is_file():
            return HttpResponse(404, url, {}, b"")
        try:
            size = path.stat().st_size
            data = b"" if method == "HEAD" else _read(path, limit)
        except OSError as error:
            raise TransientError(f"{path} cannot be read: {error}") from error
        return HttpResponse(200, url, {"content-length": str(size), "content-type": _MANIFEST_TYPE}, data)

    def _path(self, registry: str, path: str) -> Path | None:
        found = _MANIFEST.fullmatch(path)
        if found is not None:
            host = registry.replace(":", "_") if not (self._folder / "manifests" / registry).is_dir() else registry
            names = (host, found["namespace"], found["name"], found["reference"])
            if all(_PLAIN.fullmatch(name.replace(":", "_")) for name in names):
                return self._folder.joinpath("manifests", *names)
        blob = _BLOB.fullmatch(path)
        return self._folder / "blobs" / f"sha256-{blob['digest']}" if blob is not None else None


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TransientError(f"{path} has more than {limit} bytes")
    return data
