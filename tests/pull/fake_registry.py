"""A registry in the test's memory that implements ``HttpRequests``, and manifests for it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from corral_core.base.errors import SourceError
from corral_server.pull.http_requests import RESPONSE_LIMIT, HttpResponse

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return a tar archive; names with a slash at the end are folders."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass(slots=True)
class FakeRegistry:
    """Answers for ``host``; ``others`` answer for other hosts by their name, and ``intercept`` before everything."""

    host: str = "registry.example"
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    others: dict[str, Callable[[Request], HttpResponse]] = field(default_factory=dict)
    intercept: Callable[[Request], HttpResponse | None] | None = None
    digest_header: str | None = None
    ranges: bool = True

    def add_blob(
        self, data: bytes, media_type: str, *, path: str = "", annotations: Mapping[str, str] | None = None
    ) -> Json:
        """Store a blob and return its descriptor; ``path`` becomes ModelPack's annotation."""
        digest = sha256(data)
        self.blobs[digest] = data
        descriptor: Json = {"mediaType": media_type, "digest": digest, "size": len(data)}
        notes = dict(annotations or {}) | ({"org.cncf.model.filepath": path} if path else {})
        return descriptor | ({"annotations": notes} if notes else {})

    def add_manifest(self, tag: str, manifest: Json) -> str:
        """Store a manifest under a tag and its digest, and return the digest."""
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST} | manifest).encode()
        digest = sha256(body)
        self.manifests[tag] = self.manifests[digest] = body
        return digest

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
        request = Request(method, url, dict(headers or {}), body)
        self.requests.append(request)
        response = (self.intercept and self.intercept(request)) or self._answer(request)
        if len(response.body) > limit:
            raise SourceError(f"the response has more than {limit} bytes")
        return response

    def _answer(self, request: Request) -> HttpResponse:
        parts = urlsplit(request.url)
        if parts.netloc != self.host:
            return self.others[parts.netloc](request)
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", unquote(parts.path))
        assert match is not None, request.url
        stored = self.manifests if match[2] == "manifests" else self.blobs
        content = stored.get(match[3])
        if content is None:
            return response(404, request.url, {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]})
        if match[2] == "manifests":
            digest = self.digest_header or sha256(content)
            return HttpResponse(200, request.url, {"docker-content-digest": digest}, content)
        return self._range(request, content)

    def _range(self, request: Request, content: bytes) -> HttpResponse:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        if wanted is None or not self.ranges:
            return HttpResponse(200, request.url, {}, content)
        start, end = int(wanted[1]), int(wanted[2])
        part = content[start : end + 1]
        headers = {"content-range": f"bytes {start}-{start + len(part) - 1}/{len(content)}"}
        return HttpResponse(206, request.url, headers, part)


def response(status: int, url: str, data: object, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return a response with a JSON body."""
    return HttpResponse(status, url, dict(headers or {}), json.dumps(data).encode())
