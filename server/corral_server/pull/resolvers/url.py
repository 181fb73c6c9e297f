"""Resolver of ``https://`` URLs: one file, or all parts of a split GGUF file by their names.

- The size and the version are those of a request for the first byte, which the downloader repeats for the others: HEAD
  alone does not do, since a signed URL is valid for one method.
- The digest is that of ``X-Linked-Etag``, with which Hugging Face and its mirrors describe the file behind a redirect.
  Other servers report none.
- The pin is the digest, else the strong ETag, else the time of the last change and the size. A URL has no older
  versions: with the pin of another content the resolver raises FileChanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from corral_core.base.errors import SourceError
from corral_core.sources.forms import UrlSource
from corral_core.sources.snapshot import is_sha256
from corral_server.pull.credentials import Credentials
from corral_server.pull.distribution.repository import scheme
from corral_server.pull.errors import FileChanged, LocationExpired, TransientError
from corral_server.pull.http_requests import HttpRequests
from corral_server.pull.remote_files import FileRole, HttpLocation, RangeReader, RemoteFile, ResolvedSource
from corral_server.pull.resolvers.authorization import authorization
from corral_server.pull.resolvers.file_names import weights_names
from corral_server.pull.resolvers.split_files import parse_split

UNVERSIONED: Final = "unversioned"
"""Pin of a file if the server reports neither its version nor its size."""
_MAX_PIN: Final = 128
_NO_HEAD: Final = frozenset({403, 404, 405, 501})
"""Statuses of a server that does not answer HEAD, or not for a URL that was signed for GET."""
_PASSING: Final = frozenset({408, 425})


class HttpAccess(HttpRequests, RangeReader, Protocol):
    """Requests and ranges by the same client."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a server reports of a file; ``identity`` changes when the content does."""

    size: int | None
    version: str
    sha256: str | None
    identity: str


class UrlResolver:
    """The credentials are sent to the URL's host alone; ``plain_http_hosts`` are reached without TLS."""

    def __init__(self, http: HttpAccess, credentials: Credentials, *, plain_http_hosts: Collection[str] = ()) -> None:
        self._http = http
        self._credentials = credentials
        self._plain_http_hosts = plain_http_hosts

    def resolve(self, source: object, *, pin: str = "") -> ResolvedSource:
        """Return the file of a UrlSource, or the parts of a split file in order.

        Raises SourceError if the server refuses the file, FileChanged if it has another content than ``pin``, and
        TransientError.
        """
        assert isinstance(source, UrlSource)
        headers = authorization(self._credentials, source.uri)
        locations = [HttpLocation(url, headers) for url in _part_urls(self._reached(source.uri))]
        facts = [self._facts(location) for location in locations]
        found = _pin([fact.identity for fact in facts])
        if pin and pin != found:
            raise FileChanged(
                f"{_shown(source.uri)} has changed since it was resolved, and a URL has no older versions"
            )
        files = tuple(
            RemoteFile(name, FileRole.WEIGHTS, location, size=fact.size, sha256=fact.sha256, version=fact.version)
            for name, location, fact in zip(_names(source.uri), locations, facts, strict=True)
        )
        return ResolvedSource(source.uri, found, files)

    def _reached(self, url: str) -> str:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(scheme=scheme(parts.netloc, self._plain_http_hosts)))

    def _facts(self, location: HttpLocation) -> _Facts:
        size, version = self._first_byte(location)
        linked = self._head(location).get("x-linked-etag", "").strip().strip('"').lower()
        if is_sha256(linked):
            return _Facts(size, version="", sha256=linked, identity=linked)
        return _Facts(size, version=version, sha256=None, identity=_identity(version, size))

    def _first_byte(self, location: HttpLocation) -> tuple[int | None, str]:
        """Return the size and the version, as the downloader receives them."""
        try:
            with closing(self._http.open(location, start=0, end=1)) as stream:
                return stream.total, stream.version
        except LocationExpired:
            shown = _shown(location.url)
            if not location.headers:
                text = "the signature in its query has expired; write a new URL"
            else:
                text = "it does not accept the credentials; correct those in spec.sourceSecretRef"
            raise SourceError(f"source {shown}: the server refuses access: {text}") from None
        except FileChanged as error:
            raise SourceError(f"source {_shown(location.url)}: the file is empty or cannot be read: {error}") from None

    def _head(self, location: HttpLocation) -> dict[str, str]:
        """Return the headers of the URL's host, empty if it does not answer HEAD.

        Other failures raise: without the headers the same file would have another pin.
        """
        response = self._http.request("HEAD", location.url, headers=location.headers, redirects=False)
        if response.status in _NO_HEAD:
            return {}
        if response.status >= 400:
            text = f"{_shown(location.url)} answers {response.status} to HEAD"
            raise TransientError(text) if response.status in _PASSING else SourceError(f"source {text}")
        return dict(response.headers)


def _identity(version: str, size: int | None) -> str:
    """Return the ETag without its quotes, or the time of the last change and the size."""
    if version.startswith(('"', 'W/"')):
        return version.removeprefix("W/").strip('"')
    return " ".join(part for part in (version, "" if size is None else str(size)) if part) or UNVERSIONED


def _part_urls(url: str) -> tuple[str, ...]:
    """Return the URLs of all parts, which differ in the last part of their paths; the URL itself if it is not split."""
    parts = urlsplit(url)
    split = parse_split(parts.path)
    if split is None:
        return (url,)
    try:
        paths = split.parts()
    except ValueError as error:
        raise SourceError(f"source {_shown(url)}: {error}") from None
    return tuple(urlunsplit(parts._replace(path=path)) for path in paths)


def _names(url: str) -> list[str]:
    """Return the names of the parts in the snapshot, from the last part of the URL's path."""
    return weights_names(unquote(urlsplit(url).path.rpartition("/")[2], errors="replace"))


def _pin(identities: list[str]) -> str:
    """Return the only identity if it is short and printable, else the digest of all."""
    text = identities[0]
    if len(identities) == 1 and len(text) <= _MAX_PIN and text.isascii() and text.isprintable():
        return text
    return hashlib.sha256("\n".join(identities).encode("utf-8", "surrogatepass")).hexdigest()


def _shown(url: str) -> str:
    """Return the URL for an error, without the query, which may carry a signature."""
    parts = urlsplit(url)
    return repr(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300])
