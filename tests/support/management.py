"""Stores of Models and blobs in memory. What is written appears in a MemoryDirectory, as a watch would show it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from corral_core.base.json_fields import JsonObject, get_str
from corral_core.model.resource import client_names, parse_model
from corral_server.gateway.directory.directory import ModelEntry
from corral_server.gateway.management.blobs import DigestMismatch
from corral_server.gateway.management.management import Management
from corral_server.gateway.management.policy import ANYONE, CreationPolicy
from corral_server.gateway.management.store import ModelExists, ModelMissing
from tests.support.gateway import METADATA, MemoryDirectory


def shown(document: JsonObject, **changes: object) -> ModelEntry:
    """Return the directory's entry of a document: pulled, without runners."""
    model = replace(parse_model(document), created=1.0, generation=1, uid="uid")
    value = ModelEntry(
        model=model,
        names=client_names(model),
        digest="ab" * 32,
        modified=1.0,
        metadata=METADATA,
        endpoints=(),
    )
    return replace(value, **changes)  # type: ignore[arg-type]  # the test names the fields


@dataclass
class MemoryModels:
    """Implements ``ModelStore``. ``show`` makes the entry of a document; ``log`` has each change in order."""

    directory: MemoryDirectory
    show: Callable[[JsonObject], ModelEntry | None] = shown
    documents: dict[str, JsonObject] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)

    async def create(self, resource: JsonObject) -> None:
        key = _key(resource)
        if key in self.documents:
            raise ModelExists(key)
        self._write("create", resource)

    async def update(self, resource: JsonObject) -> None:
        self._known(_key(resource))
        self._write("update", resource)

    async def delete(self, key: str) -> None:
        self._known(key)
        del self.documents[key]
        self.log.append(("delete", key))
        if self.directory.get(key) is not None:
            self.directory.remove(key)

    async def read(self, key: str) -> JsonObject:
        self._known(key)
        return self.documents[key]

    def spec(self, key: str) -> JsonObject:
        """Return the spec of a stored Model."""
        spec = self.documents[key]["spec"]
        assert isinstance(spec, dict)
        return spec

    def put(self, resource: JsonObject, **changes: object) -> None:
        """Store a document that no verb wrote."""
        self.documents[_key(resource)] = resource
        self.directory.put(shown(resource, **changes))

    def _known(self, key: str) -> None:
        if key not in self.documents:
            raise ModelMissing(key)

    def _write(self, verb: str, resource: JsonObject) -> None:
        self.documents[_key(resource)] = resource
        self.log.append((verb, _key(resource)))
        entry = self.show(resource)
        if entry is not None:
            self.directory.put(entry)


@dataclass
class MemoryBlobs:
    """Implements ``BlobStore``. ``largest`` is the size of the largest piece that was written."""

    contents: dict[str, bytes] = field(default_factory=dict)
    largest: int = 0

    async def has(self, digest: str) -> bool:
        return digest in self.contents

    async def write(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        content = bytearray()
        async for chunk in chunks:
            self.largest = max(self.largest, len(chunk))
            content += chunk
        got = blob_digest(bytes(content))
        if got != digest:
            raise DigestMismatch(digest, got)
        self.contents[digest] = bytes(content)

    def source(self, digest: str) -> str:
        return f"oci://registry.test/blobs@{digest}"


def blob_digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


OPEN = CreationPolicy(create=ANYONE)
"""Everyone may create Models."""


def management(models: MemoryModels, blobs: MemoryBlobs | None = None, *, policy: CreationPolicy = OPEN) -> Management:
    return Management(models, policy, blobs)


def _key(resource: JsonObject) -> str:
    return f"{get_str(resource, 'metadata', 'namespace')}/{get_str(resource, 'metadata', 'name')}"
