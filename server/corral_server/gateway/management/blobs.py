"""Files that clients upload before ``/api/create`` names them by digest.

A digest is ``sha256:`` and 64 hex digits in lower case. A client that knows the digest of a stored blob
can use it, as in Ollama: it is as hard to guess as the content.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from corral_server.gateway.management.store import ManagementError


class DigestMismatch(ManagementError):
    """The content does not have the announced digest; the text is Ollama's (``server/routes.go``)."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f'digest mismatch, expected "{expected}", got "{got}"')
        self.got = got


class BlobRefused(ManagementError):
    """The blob cannot be stored. ``status`` is the HTTP status for the client, 413, 501 or 507 for example."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BlobStore(Protocol):
    """Stores blobs by digest."""

    async def has(self, digest: str) -> bool:
        """Return whether the blob is stored. Raises BlobRefused."""

    async def write(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Store the content, in bounded memory; nothing stays of content with another digest, or of half a blob.

        An error of ``chunks``, such as the disconnect of the client, is raised unchanged. Raises DigestMismatch and
        BlobRefused.
        """

    def source(self, digest: str) -> str:
        """Return the source URI with which a Model names a stored blob. Raises BlobRefused."""
