"""Resolver of ``s3://``, ``gs://`` and ``az://``.

- The key of an object names that object; the first part of a split GGUF file stands for all parts.
- Any other key is a folder: it must have the weights of one model below it, one GGUF file or one split file, and at
  most one projector (``mmproj`` in its name, as llama.cpp's converter writes it).
- The pin of one object is its version id if the bucket has versions, otherwise its ETag; a pinned version is read even
  after the object was replaced. The pin of several objects is a digest over their names, ETags and version ids.
- The expected SHA-256 is the object's metadata ``sha256``, if its uploader has set it. The checksums of the providers
  are of no use: S3's is returned only if a signed header asks for it, which obstore does not send, and is one of parts
  for large uploads; those of Google and Azure are CRC32C and MD5.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import unquote

from corral_core.base.errors import SourceError
from corral_core.sources.forms import BucketSource
from corral_core.sources.locate import part_names
from corral_core.sources.snapshot import check_file_name
from corral_server.pull.errors import FileChanged
from corral_server.pull.objects.errors import NoSuchObject
from corral_server.pull.objects.reader import ObjectInfo, ObjectReader, object_uri
from corral_server.pull.remote_files import FileRole, ObjectLocation, RemoteFile, ResolvedSource

MAX_LISTED: Final = 10_000
"""Objects below a folder. A folder with more is probably not that of one model."""
_SHOWN: Final = 20
_SHOWN_URI: Final = 300
_REQUESTS: Final = 8
"""Concurrent requests for the attributes of split files."""
_PART: Final = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.gguf", re.IGNORECASE)
_NOT_WEIGHTS: Final = re.compile(r"imatrix", re.IGNORECASE)
_PROJECTOR: Final = re.compile(r"mmproj", re.IGNORECASE)
_VERSION: Final = "version:"
_ETAG: Final = "etag:"
_OBJECTS: Final = "objects:"


class BucketResolver:
    """Resolves objects by their attributes and, for folders, by a list. Thread-safe."""

    def __init__(self, objects: ObjectReader) -> None:
        self._objects = objects

    def resolve(self, source: object, *, pin: str = "") -> ResolvedSource:
        """Return the files; with a ``pin`` those of an earlier result. Raises SourceError and TransientError."""
        if not isinstance(source, BucketSource):
            raise TypeError("the resolver of buckets resolves s3://, gs:// and az://")
        version = pin.removeprefix(_VERSION) if pin.startswith(_VERSION) else ""
        try:
            files = self._files(source, version)
        except FileChanged as error:
            raise SourceError(f"{error}; {_RENEW}") from None
        found = _pin(files)
        if pin and found != pin:
            raise SourceError(f"{source.uri} has been replaced since it was pulled, and {_RENEW}")
        return ResolvedSource(source.uri, found, tuple(file for _, file in files))

    def _files(self, source: BucketSource, version: str) -> list[tuple[ObjectInfo, RemoteFile]]:
        uri = object_uri(source)
        parts = _with_parts(uri)
        if len(parts) == 1:
            info = self._object(uri, version)
            if info is not None:
                return [_file(info, FileRole.WEIGHTS)]
            weights, projectors = _weights_of(uri, self._objects.names(uri, limit=MAX_LISTED))
        else:
            weights, projectors = parts, []
        uris = [*weights, *projectors]
        infos = self._infos(uris, version if len(uris) == 1 else "")
        roles = [FileRole.WEIGHTS] * len(weights) + [FileRole.PROJECTOR] * len(projectors)
        return [_file(info, role) for info, role in zip(infos, roles, strict=True)]

    def _object(self, uri: str, version: str) -> ObjectInfo | None:
        """Return the attributes of an object, None for a folder. A pinned version of a folder is one of its object."""
        try:
            info = self._objects.info(uri, version=version)
        except NoSuchObject:
            return None
        except FileChanged:
            if self._objects.names(uri, limit=MAX_LISTED):
                return None
            raise
        return None if info.is_folder else info

    def _infos(self, uris: Sequence[str], version: str) -> list[ObjectInfo]:
        """Return the attributes of all objects. Raises SourceError with those that are missing."""

        def info(uri: str) -> ObjectInfo | None:
            try:
                return self._objects.info(uri, version=version)
            except NoSuchObject:
                return None

        with ThreadPoolExecutor(min(_REQUESTS, len(uris)), "objects") as pool:
            found = list(pool.map(info, uris))
        missing = [uri for uri, attributes in zip(uris, found, strict=True) if attributes is None]
        if missing:
            raise SourceError(
                f"{uris[0][:_SHOWN_URI]} is one of {len(uris)} files and {len(missing)} of them are missing: "
                f"{_listed(missing)}; upload all of them into one folder"
            )
        return [attributes for attributes in found if attributes is not None]


_RENEW: Final = (
    "the pulled version is not available any more: change the Model's source to pull the present one, or upload the "
    "former one under another name"
)


def _file(info: ObjectInfo, role: FileRole) -> tuple[ObjectInfo, RemoteFile]:
    location = ObjectLocation(info.uri, info.version)
    name = _name(info.uri)
    return info, RemoteFile(name, role, location, size=info.size, sha256=info.sha256, version=info.etag)


def _name(uri: str) -> str:
    """Return the file name of an object. Raises SourceError if a store has no such names."""
    try:
        return check_file_name(unquote(uri.rpartition("/")[2]))
    except ValueError as error:
        raise SourceError(
            f"{uri[:_SHOWN_URI]}: the last part of the object's name is its file name, and {error}"
        ) from None


def _with_parts(uri: str) -> list[str]:
    """Return the URIs of all parts by that of the first; one that is not split has one part. Raises SourceError."""
    folder, _, name = uri.rpartition("/")
    return [f"{folder}/{part}" for part in part_names(name)]


def _weights_of(uri: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Choose the weights and the projector of a folder. Raises SourceError with what there is."""
    gguf = [name for name in names if name.lower().endswith(".gguf") and not _NOT_WEIGHTS.search(_last(name))]
    projectors = [name for name in gguf if _PROJECTOR.search(_last(name))]
    weights = [name for name in gguf if name not in projectors]
    models = {_PART.sub("", name): name for name in reversed(weights)}
    if len(models) == 1 and len(projectors) <= 1:
        return _with_parts(next(iter(models.values()))), projectors
    if not names:
        raise SourceError(f"{uri}: there is no such object, and none below it as a folder; correct the source")
    if not gguf:
        raise SourceError(f"{uri} is a folder without a GGUF file; it has {_listed(names)}")
    what = "several models" if len(models) > 1 else "several projectors" if models else "no weights"
    raise SourceError(f"{uri} is a folder with {what}; name one object: {_listed(gguf)}")


def _last(uri: str) -> str:
    return uri.rpartition("/")[2]


def _listed(uris: Sequence[str]) -> str:
    shown = ", ".join(uri[:_SHOWN_URI] for uri in uris[:_SHOWN])
    return f"{shown}, and {len(uris) - _SHOWN} more" if len(uris) > _SHOWN else shown


def _pin(files: Iterable[tuple[ObjectInfo, RemoteFile]]) -> str:
    infos = [info for info, _ in files]
    for info in infos:
        if not info.version and not info.etag:
            raise SourceError(
                f"{info.uri[:_SHOWN_URI]}: the server gives neither an ETag nor a version id; it cannot be pinned"
            )
    if len(infos) == 1:
        version, etag = infos[0].version, infos[0].etag.strip('"')
        return f"{_VERSION}{version}" if version else f"{_ETAG}{etag}"
    described = json.dumps([(info.uri, info.etag, info.version) for info in infos])
    return f"{_OBJECTS}{hashlib.sha256(described.encode()).hexdigest()}"
