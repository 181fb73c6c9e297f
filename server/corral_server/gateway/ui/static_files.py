"""Files of the page, as its build leaves them in the folder ``static``: an index and immutable assets.

- They are read into memory at the first request for one of them, and never again: they are part of the installation.
- A path is looked up among the files that exist, so no request reaches a file outside of the folder.
- The names of assets contain a hash of their content, so browsers keep them. The index is checked at every visit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from corral_server.gateway.messages import TEXT_TYPE, Request, Response

INDEX: Final = "index.html"
ASSETS: Final = "assets/"
FOLDER: Final = Path(__file__).parent / "static"

_NOT_BUILT: Final = b"the page is not built: run `make ui`, or install a released package\n"
_CONTENT_SECURITY_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = (
    (b"content-security-policy", _CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_REVALIDATED: Final = (b"cache-control", b"no-cache")
_IMMUTABLE: Final = (b"cache-control", b"public, max-age=31536000, immutable")
_TYPES: Final = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".ico": b"image/x-icon",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".png": b"image/png",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
    ".webp": b"image/webp",
    ".woff2": b"font/woff2",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    content_type: bytes
    etag: bytes


class StaticFiles:
    """Responses with the files of ``folder``, by default that of the installation."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or FOLDER

    async def redirect(self, request: Request) -> Response:
        """Answer ``/ui``. The location is relative, so that it holds behind every path prefix."""
        return Response(308, content_type=None, headers=((b"location", b"ui/"), *SECURITY_HEADERS))

    async def index(self, request: Request) -> Response:
        return self._respond(request, INDEX, _REVALIDATED, missing=_NOT_BUILT)

    async def asset(self, request: Request) -> Response:
        name = request.path.partition("/ui/")[2]
        return self._respond(request, name, _IMMUTABLE, missing=b"404 page not found")

    def _respond(self, request: Request, name: str, caching: tuple[bytes, bytes], *, missing: bytes) -> Response:
        file = self._files.get(name)
        if file is None:
            return Response(404, missing, TEXT_TYPE, ((b"cache-control", b"no-store"), *SECURITY_HEADERS))
        headers = ((b"etag", file.etag), caching, *SECURITY_HEADERS)
        if file.etag in request.header(b"if-none-match"):
            return Response(304, content_type=None, headers=headers)
        return Response(200, file.content, file.content_type, headers)

    @cached_property
    def _files(self) -> dict[str, _File]:
        """The index and all assets by their path, none if the page is not built."""
        paths = [self._folder / INDEX, *(self._folder / ASSETS).rglob("*")]
        return {path.relative_to(self._folder).as_posix(): _read(path) for path in paths if path.is_file()}


def _read(path: Path) -> _File:
    content = path.read_bytes()
    etag = b'"%b"' % hashlib.sha256(content).hexdigest()[:32].encode()
    return _File(content, _TYPES.get(path.suffix, b"application/octet-stream"), etag)
