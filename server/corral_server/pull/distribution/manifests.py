"""Manifests and indexes of the OCI distribution protocol, parsed from what a registry sent.

Invariants of a parsed manifest:
- Digests are ``sha256:`` and 64 hex digits, sizes are within 0 and ``MAX_SIZE`` bytes.
- There are at most ``MAX_LAYERS`` layers, or entries of an index.
- ``Descriptor.path`` is relative and has no ``..``.

Formats: https://github.com/opencontainers/image-spec/blob/main/manifest.md and image-index.md, Docker's image manifest
V2 schema 2, and the former OCI artifact manifest, whose layers are called ``blobs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.base.json_fields import JsonObject
from corral_core.base.received_json import parse_received_object

MANIFEST_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of a manifest; registries accept manifests up to this size (distribution-spec, "Pushing Manifests")."""
MAX_LAYERS: Final = 512
MAX_SIZE: Final = 2**44
"""Bytes of one blob (16 TiB)."""
MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
)
"""Media types that ``parse_manifest`` reads, for the header Accept."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PATH_KEYS: Final = ("org.cncf.model.filepath", "org.opencontainers.image.title")
_METADATA_KEY: Final = "org.cncf.model.file.metadata+json"
_REFERENCE_KEY: Final = "vnd.docker.reference.type"
_MAX_TEXT: Final = 1024


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob, or a manifest in an index. ``path`` is its file name or path according to annotations, or empty."""

    media_type: str
    digest: str
    size: int
    path: str = ""

    @property
    def sha256(self) -> str:
        """Digest without its algorithm: 64 hex digits."""
        return self.digest.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Manifest:
    """``digest`` is that of the manifest itself; ``artifact_type`` is empty if the manifest names none."""

    digest: str
    artifact_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """``os`` and ``architecture`` are empty without a platform. An attestation describes another entry."""

    manifest: Descriptor
    os: str
    architecture: str
    attestation: bool


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, one per platform or variant."""

    digest: str
    entries: tuple[IndexEntry, ...]

    def choose(self, architecture: str) -> Descriptor:
        """Return the manifest for Linux on the architecture (Go's name), or else the first one that may fit.

        Weights do not depend on the platform, so a manifest of another architecture serves as well. Raises SourceError
        if there is no entry.
        """
        entries = [entry for entry in self.entries if not entry.attestation]
        if not entries:
            raise SourceError("the index has no manifest")
        return min(entries, key=lambda entry: _distance(entry, architecture)).manifest


def parse_manifest(body: bytes, *, digest: str) -> Manifest | Index:
    """Parse a manifest or an index with the given digest. Raises SourceError."""
    try:
        data = parse_received_object(body, limit=MANIFEST_LIMIT)
    except ValueError as error:
        raise SourceError(f"the manifest is not valid: {error}") from error
    if data.get("schemaVersion", 2) != 2:
        raise SourceError("the manifest has an old format (schema version 1): push the image again with a newer tool")
    layers = data.get("layers", data.get("blobs"))
    if ("manifests" in data) == (layers is not None):
        raise SourceError("the manifest must have either layers or manifests")
    if layers is None:
        entries = _list(data["manifests"], "manifests")
        return Index(digest, tuple(_entry(item, f"manifests[{number}]") for number, item in enumerate(entries)))
    config = data.get("config")
    items = _list(layers, "layers")
    return Manifest(
        digest=digest,
        artifact_type=_text(data.get("artifactType", ""), "artifactType"),
        config=None if config is None else _descriptor(config, "config"),
        layers=tuple(_descriptor(item, f"layers[{number}]") for number, item in enumerate(items)),
    )


def is_digest(reference: str) -> bool:
    """Check whether a reference is a digest, not a tag."""
    return _DIGEST.fullmatch(reference) is not None


def _distance(entry: IndexEntry, architecture: str) -> int:
    if entry.os == "linux":
        return 0 if entry.architecture == architecture else 2
    return 3 if entry.os else 1


def _entry(item: object, field: str) -> IndexEntry:
    data = _object(item, field)
    platform = _object(data.get("platform") or {}, f"{field}.platform")
    annotations = _object(data.get("annotations") or {}, f"{field}.annotations")
    system = _text(platform.get("os", ""), f"{field}.platform.os")
    return IndexEntry(
        manifest=_descriptor(data, field),
        os=system,
        architecture=_text(platform.get("architecture", ""), f"{field}.platform.architecture"),
        attestation=_REFERENCE_KEY in annotations or system == "unknown",
    )


def _descriptor(item: object, field: str) -> Descriptor:
    data = _object(item, field)
    digest = _text(data.get("digest", ""), f"{field}.digest")
    if not is_digest(digest):
        raise SourceError(f"the manifest is not valid: {field}.digest must be sha256: and 64 hex digits")
    size = data.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise SourceError(f"the manifest is not valid: {field}.size must be a number of bytes up to {MAX_SIZE}")
    return Descriptor(
        media_type=_text(data.get("mediaType", ""), f"{field}.mediaType").partition(";")[0].strip().lower(),
        digest=digest,
        size=size,
        path=_path(_object(data.get("annotations") or {}, f"{field}.annotations"), field),
    )


def _path(annotations: JsonObject, field: str) -> str:
    """Return the path in the annotations, without a leading ``./``, or an empty string."""
    found = next((annotations[key] for key in _PATH_KEYS if annotations.get(key)), None)
    if found is None and annotations.get(_METADATA_KEY):
        found = _name_in_metadata(annotations[_METADATA_KEY], field)
    if not found:
        return ""
    path = PurePosixPath(_text(found, f"{field}.annotations"))
    if path.is_absolute() or ".." in path.parts or not str(path).isprintable():
        raise SourceError(f"the manifest is not valid: {field} has a path that is not relative or has '..'")
    return str(path) if path.name else ""


def _name_in_metadata(metadata: object, field: str) -> object:
    try:
        return parse_received_object(_text(metadata, f"{field}.annotations").encode(), limit=_MAX_TEXT).get("name")
    except ValueError:
        return None


def _object(value: object, field: str) -> JsonObject:
    if not isinstance(value, dict):
        raise SourceError(f"the manifest is not valid: {field} must be an object")
    return value


def _list(value: object, field: str) -> list[object]:
    if not isinstance(value, list):
        raise SourceError(f"the manifest is not valid: {field} must be a list")
    if len(value) > MAX_LAYERS:
        raise SourceError(f"the manifest has {len(value)} {field}; at most {MAX_LAYERS} are allowed")
    return value


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise SourceError(f"the manifest is not valid: {field} must be a string of at most {_MAX_TEXT} characters")
    return value
