"""Blobs that clients upload before ``/api/create``, in the store of pulled weights."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Self

from corral_core.base.errors import CorralError
from corral_core.sources.snapshot import is_sha256
from corral_server.gateway.management.blobs import BlobRefused, DigestMismatch
from corral_server.local.management.uploads import UploadedWeights
from corral_server.pull.errors import StoreFull
from corral_server.pull.store import WeightsStore
from corral_server.system.durable_files import temporary_name

_WRITE_SIZE: Final = 1 << 20
"""Bytes that are written and hashed at a time."""
_PREFIX: Final = "sha256:"


class LocalBlobStore:
    """Implements ``BlobStore``. What is uploaded or asked for is kept for a Model that names it (``uploads``)."""

    def __init__(self, store: WeightsStore, uploads: UploadedWeights) -> None:
        self._store = store
        self._uploads = uploads

    async def has(self, digest: str) -> bool:
        return await asyncio.to_thread(self._claim, _hex(digest))

    async def write(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        expected, buffer = _hex(digest), bytearray()
        upload = await asyncio.to_thread(_Upload, self._store, expected)
        with upload:
            async for chunk in chunks:
                buffer += chunk
                if len(buffer) >= _WRITE_SIZE:
                    await asyncio.to_thread(upload.write, bytes(buffer))
                    buffer.clear()
            await asyncio.to_thread(upload.write, bytes(buffer))
            await asyncio.to_thread(upload.publish)
        await asyncio.to_thread(self._claim, expected)

    def source(self, digest: str) -> str:
        expected = _hex(digest)
        if not self._claim(expected):
            raise BlobRefused(404, f"the blob {digest} is not stored: upload it with POST /api/blobs/{digest} first")
        return self._uploads.uri(expected)

    def _claim(self, sha256: str) -> bool:
        try:
            return self._uploads.claim(sha256)
        except CorralError as error:
            raise _refused(error) from error


class _Upload:
    """A blob that is being written to a temporary file, which is removed at the end unless it was published.

    The constructor raises BlobRefused.
    """

    def __init__(self, store: WeightsStore, sha256: str) -> None:
        self._store = store
        self._expected = sha256
        self._hash = hashlib.sha256()
        self._path = store.partial / temporary_name(f"sha256-{sha256}")
        try:
            store.prepare()
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _refused(store.error(error, "store a blob")) from error
        except CorralError as error:
            raise _refused(error) from error

    def write(self, data: bytes) -> None:
        """Append to the file. Raises BlobRefused."""
        self._hash.update(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise _refused(self._store.error(error, "store a blob")) from error

    def publish(self) -> None:
        """Publish the file as a blob. Raises DigestMismatch and BlobRefused."""
        if self._hash.hexdigest() != self._expected:
            raise DigestMismatch(_PREFIX + self._expected, _PREFIX + self._hash.hexdigest())
        try:
            self._store.publish_blob(self._path, self._descriptor, self._expected)
        except CorralError as error:
            raise _refused(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)
        with contextlib.suppress(OSError):
            Path(self._path).unlink(missing_ok=True)


def _hex(digest: str) -> str:
    sha256 = digest.removeprefix(_PREFIX)
    if not digest.startswith(_PREFIX) or not is_sha256(sha256):
        raise BlobRefused(400, "invalid digest format")
    return sha256


def _refused(error: CorralError) -> BlobRefused:
    return BlobRefused(507 if isinstance(error, StoreFull) else 500, str(error))
