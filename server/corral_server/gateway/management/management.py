"""What a gateway needs to create, change and delete Models by Ollama's verbs."""

from __future__ import annotations

from dataclasses import dataclass

from corral_server.gateway.management.blobs import BlobStore
from corral_server.gateway.management.policy import CreationPolicy
from corral_server.gateway.management.store import ModelStore


@dataclass(frozen=True, slots=True)
class Management:
    """``blobs`` is None where uploads have no place; the error of an upload says what to do instead."""

    models: ModelStore
    policy: CreationPolicy
    blobs: BlobStore | None = None
