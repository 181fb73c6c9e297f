"""Client of one repository of a registry: manifests and blobs, each verified by its digest.

- A manifest has the digest that was requested, and the one in the header ``Docker-Content-Digest``.
- A small blob is read into memory within a limit; a large one becomes a location with the headers that the registry
  demanded, which expire with the token in them.
- A 401 is answered once per request, and only if the registry itself sent it and not the target of a redirect.

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from corral_core.base.errors import SourceError
from corral_server.pull.credentials import Credentials
from corral_server.pull.distribution.authentication import Authentication
from corral_server.pull.distribution.manifests import (
    MANIFEST_LIMIT,
    MANIFEST_TYPES,
    Descriptor,
    Index,
    Manifest,
    is_digest,
    parse_manifest,
)
from corral_server.pull.distribution.repository import Repository
from corral_server.pull.http_requests import HttpRequests, HttpResponse
from corral_server.pull.remote_files import HttpLocation
from corral_server.registries.error_messages import error_message

_INDEX_DEPTH: Final = 2
"""Indexes inside one another that are followed."""


class RepositoryClient:
    """``headers`` are sent with each request, such as User-Agent; ``accept`` are the media types of manifests."""

    def __init__(
        self,
        http: HttpRequests,
        repository: Repository,
        *,
        credentials: Credentials,
        headers: Mapping[str, str] | None = None,
        accept: Sequence[str] = MANIFEST_TYPES,
    ) -> None:
        self._http = http
        self._repository = repository
        self._authentication = Authentication(http, credentials, repository)
        self._headers = dict(headers or {})
        self._accept = {"Accept": ", ".join(accept)}

    def manifest(self, reference: str, *, architecture: str) -> Manifest:
        """Return the manifest of a tag or digest; of an index, the one for the architecture (Go's name).

        Raises SourceError and TransientError.
        """
        for _ in range(_INDEX_DEPTH + 1):
            found = self._one_manifest(reference)
            if isinstance(found, Manifest):
                return found
            reference = found.choose(architecture).digest
        raise SourceError(f"the manifest is an index of indexes, more than {_INDEX_DEPTH} levels deep")

    def find_manifest(self, reference: str) -> Manifest | None:
        """Return the manifest, or None if the registry has none for the tag or digest. Raises like ``manifest``."""
        response = self._get(f"manifests/{quote(reference, safe=':')}", self._accept)
        if response.status in (400, 404):
            return None
        found = self._parsed(response, reference)
        return found if isinstance(found, Manifest) else None

    def manifest_blob(self, digest: str) -> Manifest | None:
        """Return the manifest that the registry keeps as a blob, or None. Raises like ``manifest``."""
        response = self._get(f"blobs/{quote(digest, safe=':')}", {})
        if response.status in (400, 404):
            return None
        found = self._parsed(response, digest)
        return found if isinstance(found, Manifest) else None

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return the content of a small blob. Raises SourceError if it is larger than the limit or differs."""
        if descriptor.size > limit:
            raise SourceError(
                f"the blob {descriptor.digest} ({descriptor.media_type}) has {descriptor.size} bytes; "
                f"at most {limit} are allowed"
            )
        response = self._get(f"blobs/{descriptor.digest}", {}, limit=limit)
        if response.status != 200:
            raise self._failure(response, f"the blob {descriptor.digest}")
        if len(response.body) != descriptor.size or hashlib.sha256(response.body).hexdigest() != descriptor.sha256:
            raise SourceError(f"the blob {descriptor.digest} has other content than its size and digest tell")
        return response.body

    def part(self, descriptor: Descriptor, start: int, *, length: int) -> bytes:
        """Return up to ``length`` bytes of a blob from ``start`` on, which are not verified.

        Raises SourceError if the registry cannot send a part of a blob.
        """
        end = min(start + length, descriptor.size)
        if start >= end:
            return b""
        headers = {"Range": f"bytes={start}-{end - 1}"}
        response = self._get(f"blobs/{descriptor.digest}", headers, limit=max(length, 64 * 1024))
        if response.status == 206 and response.headers.get("content-range", "").startswith(f"bytes {start}-"):
            return response.body[: end - start]
        if response.status == 200 and len(response.body) == descriptor.size:
            return response.body[start:end]
        raise self._failure(response, f"a part of the blob {descriptor.digest}")

    def location(self, descriptor: Descriptor) -> HttpLocation:
        """Return where a blob is downloaded from."""
        headers = {**self._headers, **self._authentication.headers}
        return HttpLocation(f"{self._repository.url}/blobs/{descriptor.digest}", headers)

    def _one_manifest(self, reference: str) -> Manifest | Index:
        response = self._get(f"manifests/{quote(reference, safe=':')}", self._accept)
        return self._parsed(response, reference)

    def _parsed(self, response: HttpResponse, reference: str) -> Manifest | Index:
        if response.status != 200:
            raise self._failure(response, repr(reference))
        digest = f"sha256:{hashlib.sha256(response.body).hexdigest()}"
        announced = response.headers.get("docker-content-digest", "")
        for expected in (reference, announced):
            if is_digest(expected) and expected != digest:
                raise SourceError(f"the manifest of {reference!r} has the digest {digest} instead of {expected}")
        return parse_manifest(response.body, digest=digest)

    def _get(self, path: str, headers: Mapping[str, str], *, limit: int = MANIFEST_LIMIT) -> HttpResponse:
        response = self._send(path, headers, limit=limit)
        if response.status == 401 and urlsplit(response.url).netloc.lower() == self._repository.host:
            self._authentication.answer(response.headers.get("www-authenticate", ""))
            response = self._send(path, headers, limit=limit)
        return response

    def _send(self, path: str, headers: Mapping[str, str], *, limit: int) -> HttpResponse:
        merged = {**self._headers, **headers, **self._authentication.headers}
        return self._http.request("GET", f"{self._repository.url}/{path}", headers=merged, limit=limit)

    def _failure(self, response: HttpResponse, what: str) -> SourceError:
        where = f"the registry {self._repository.registry}"
        if response.status in (401, 403):
            return SourceError(self._authentication.refusal(f"denied access to {what}") + _message(response))
        if response.status == 404:
            name = self._repository.name
            return SourceError(f"{where} has no {what} of {name!r}: check name and tag{_message(response)}")
        return SourceError(f"{where} answered with status {response.status} for {what}{_message(response)}")


def _message(response: HttpResponse) -> str:
    """Return the error message in a response, in parentheses, or an empty string."""
    text = error_message(response.body)
    return f" ({text})" if text else ""
