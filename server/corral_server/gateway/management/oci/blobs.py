"""BlobStore in a repository of an OCI registry, so that every gateway replica has every blob.

- An upload is sent in parts (distribution-spec, "Pushing a blob in chunks"), one in memory for each upload. The digest
  is computed here, and the registry computes it again.
- A blob is stored when a manifest names it, by a tag of its digest: then the registry's garbage collection keeps it,
  and the pullers read it as ``oci://repository:tag``. The registry removes what an interrupted upload leaves there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp

from corral_core.base.errors import InvalidSetting
from corral_core.base.json_fields import get_objects, get_str
from corral_core.base.received_json import parse_received_object
from corral_server.gateway.management.blobs import BlobRefused, DigestMismatch
from corral_server.gateway.management.oci.client import RESPONSE_LIMIT, RegistryClient, RegistryResponse
from corral_server.gateway.management.oci.repository import BlobRepository

PART_SIZE: Final = 8 * 1024 * 1024
"""Bytes of a part; some registries demand at least 5 MiB."""
MAX_UPLOADS: Final = 4
"""Uploads at a time; the clients of others wait."""

_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_EMPTY: Final = b"{}"
_GGUF_TYPE: Final = "application/vnd.cncf.model.weight.v1.gguf"
_OTHER_TYPE: Final = "application/octet-stream"


class RegistryBlobs:
    """Implements ``BlobStore``. Created by ``open_registry_blobs``."""

    def __init__(self, session: aiohttp.ClientSession, repository: BlobRepository) -> None:
        self._session = session
        self._repository = repository
        self._uploads = asyncio.Semaphore(MAX_UPLOADS)

    async def has(self, digest: str) -> bool:
        client = self._client()
        url = f"{self._repository.url}/manifests/{_tag(digest)}"
        response = await client.send("GET", url, headers={"Accept": _MANIFEST_TYPE})
        if response.status == 404:
            return False
        if response.status != 200:
            raise client.failure(response, "the request for a manifest")
        return digest in _layers(response.body)

    async def write(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        async with self._uploads:
            upload = _Upload(self._client(), self._repository)
            blob = await upload.blob(chunks, digest)
            config = await upload.blob(_once(_EMPTY), f"sha256:{hashlib.sha256(_EMPTY).hexdigest()}")
            await upload.manifest(_tag(digest), config, blob=blob)

    def source(self, digest: str) -> str:
        return f"oci://{self._repository.registry}/{self._repository.name}:{_tag(digest)}"

    def _client(self) -> RegistryClient:
        try:
            return RegistryClient(self._session, self._repository, self._repository.login())
        except InvalidSetting as error:
            raise BlobRefused(502, str(error)) from None


@asynccontextmanager
async def open_registry_blobs(repository: BlobRepository) -> AsyncIterator[RegistryBlobs]:
    """Yield a store whose connections are closed with the block."""
    connector = aiohttp.TCPConnector(limit=2 * MAX_UPLOADS)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        yield RegistryBlobs(session, repository)


@dataclass(frozen=True, slots=True)
class _Blob:
    """An uploaded blob; ``size`` is in bytes."""

    digest: str
    size: int
    media_type: str


class _Upload:
    """Pushes to one repository."""

    def __init__(self, client: RegistryClient, repository: BlobRepository) -> None:
        self._client = client
        self._repository = repository

    async def blob(self, chunks: AsyncIterator[bytes], digest: str) -> _Blob:
        """Push a blob. Raises DigestMismatch and BlobRefused; errors of ``chunks`` pass unchanged."""
        begun = await self._expect(202, "POST", f"{self._repository.url}/blobs/uploads/")
        location = self._location(begun, self._repository.url)
        try:
            return await self._parts(location, chunks, digest=digest)
        except BaseException:
            with suppress(BlobRefused):  # otherwise the registry removes the upload after some days
                await self._client.send("DELETE", location)
            raise

    async def _parts(self, location: str, chunks: AsyncIterator[bytes], *, digest: str) -> _Blob:
        hashed, size, first = hashlib.sha256(), 0, b""
        async for part in _joined(chunks):
            first = first or part[:4]
            await asyncio.to_thread(hashed.update, part)
            headers = {"Content-Type": _OTHER_TYPE, "Content-Range": f"{size}-{size + len(part) - 1}"}
            location = self._location(await self._expect(202, "PATCH", location, headers=headers, body=part), location)
            size += len(part)
        got = f"sha256:{hashed.hexdigest()}"
        if got != digest:
            raise DigestMismatch(digest, got)
        finish = f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest})}"
        await self._expect(201, "PUT", finish, headers={"Content-Type": _OTHER_TYPE})
        return _Blob(digest, size, _GGUF_TYPE if first == b"GGUF" else _OTHER_TYPE)

    async def manifest(self, tag: str, config: _Blob, *, blob: _Blob) -> None:
        """Push a manifest that names the blob."""
        body = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "artifactType": blob.media_type,
            "config": _descriptor(config, _EMPTY_TYPE),
            "layers": [_descriptor(blob, blob.media_type)],
        }
        url = f"{self._repository.url}/manifests/{tag}"
        await self._expect(201, "PUT", url, headers={"Content-Type": _MANIFEST_TYPE}, body=json.dumps(body).encode())

    async def _expect(
        self, status: int, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> RegistryResponse:
        response = await self._client.send(method, url, headers=headers, body=body)
        if response.status != status:
            raise self._client.failure(response, f"{method} of an upload")
        return response

    def _location(self, response: RegistryResponse, base: str) -> str:
        """Return where the upload continues. Raises BlobRefused for another server: it would get the credentials."""
        url = urljoin(base, response.headers.get("location", ""))
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" != self._repository.origin:
            raise BlobRefused(
                502,
                f"the registry {self._repository.registry} continues an upload at {parts.scheme}://{parts.netloc}: set "
                "its own URL in its configuration (for a registry behind a proxy, X-Forwarded-Proto and Host)",
            )
        return url


def _tag(digest: str) -> str:
    return f"blob-{digest.removeprefix('sha256:')}"


def _descriptor(blob: _Blob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _layers(body: bytes) -> list[str]:
    """Return the digests of a manifest's layers, none if it is not valid."""
    try:
        return [
            get_str(layer, "digest")
            for layer in get_objects(parse_received_object(body, limit=RESPONSE_LIMIT), "layers")
        ]
    except ValueError:
        return []


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _joined(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join chunks to parts of PART_SIZE bytes; the last one may be smaller."""
    pending = bytearray()
    async for chunk in chunks:
        pending += chunk
        while len(pending) >= PART_SIZE:
            yield bytes(pending[:PART_SIZE])
            del pending[:PART_SIZE]
    if pending:
        yield bytes(pending)
