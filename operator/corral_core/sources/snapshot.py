"""Snapshot: the pulled files of one source at one pin, in a store.

    blobs/sha256-<hex>              content; the naming of Ollama's blobs
    snapshots/<id>/snapshot.json    the Snapshot
    snapshots/<id>/<name>           relative symbolic link to the blob of each file
    partial/                        downloads that are not complete
    published/                      digests of files whose digest was not known before their download
    failures/                       downloads whose content was wrong

- A store may be shared by several writers, so ``snapshot.json`` is untrusted: its size and every field are bounded, and
  SourceError is the only error of a damaged one.
- A file's name is a plain name: it can never leave the folder of its snapshot.
- A snapshot is published as a whole, by rename. One that exists is complete.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StrictInt, StrictStr

from corral_core.base.errors import SourceError
from corral_core.base.json_codec import JsonCodec
from corral_core.base.received_json import parse_received_object
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults

SNAPSHOT_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a ``snapshot.json``."""
MAX_FILES: Final = 1024
MAX_NAME: Final = 255
"""Bytes of a file name, the limit of Linux' file systems."""
METADATA_NAME: Final = "snapshot.json"
NO_FILE_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO})
"""Errors of a metadata file that is missing or no regular file. After other errors it may be intact."""
_ID_DIGITS: Final = 32
_DIGEST_DIGITS: Final = 64
_HEX: Final = frozenset("0123456789abcdef")


class UnreadableSnapshot(SourceError):
    """A snapshot that may be intact but could not be read, for example after an I/O error."""


class FileRole(StrEnum):
    """Role of a file. WEIGHTS may have several parts, in order; ADAPTER is a LoRA adapter."""

    WEIGHTS = "weights"
    PROJECTOR = "projector"
    ADAPTER = "adapter"


def check_file_name(name: str) -> str:
    """Return the name if it is a plain file name of printable characters. Raises ValueError."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = 0
    plain = name.isprintable() and "/" not in name and "\\" not in name and not name.startswith(".")
    if not 1 <= length <= MAX_NAME or not plain or name == METADATA_NAME:
        raise ValueError(f"{name[:MAX_NAME]!r} is not a plain file name of at most {MAX_NAME} bytes")
    return name


def is_sha256(text: str) -> bool:
    """Return whether the text is a SHA-256 digest as lower-case hex digits."""
    return len(text) == _DIGEST_DIGITS and _HEX.issuperset(text)


def _check_sha256(value: str) -> str:
    if not is_sha256(value):
        raise ValueError(f"{value[:MAX_NAME]!r} is not a SHA-256 digest in lower-case hex digits")
    return value


def _check_id(value: str) -> str:
    if len(value) != _ID_DIGITS or not _HEX.issuperset(value):
        raise ValueError(f"{value[:MAX_NAME]!r} is not the id of a snapshot, which has {_ID_DIGITS} hex digits")
    return value


def _check_files(files: tuple[SnapshotFile, ...]) -> tuple[SnapshotFile, ...]:
    if len({file.name for file in files}) != len(files):
        raise ValueError("two files have the same name")
    return files


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """``sha256`` in hex digits, ``size`` in bytes."""

    name: Annotated[StrictStr, AfterValidator(check_file_name)]
    role: FileRole
    sha256: Annotated[StrictStr, AfterValidator(_check_sha256)]
    size: Annotated[StrictInt, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Files of the source ``uri`` at ``pin``; weights parts are in order. ``id`` is ``snapshot_id(uri, pin)``."""

    id: Annotated[StrictStr, AfterValidator(_check_id)]
    uri: Annotated[StrictStr, Field(max_length=4096)]
    pin: Annotated[StrictStr, Field(max_length=1024)]
    files: Annotated[tuple[SnapshotFile, ...], Field(max_length=MAX_FILES, strict=False), AfterValidator(_check_files)]
    defaults: SourceDefaults = NO_DEFAULTS

    @property
    def size(self) -> int:
        """Sum of the files' sizes in bytes."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, object]:
        """Convert to JSON. Raises ValueError if a field is invalid or out of bounds."""
        data = _CODEC.encode(self) | {"defaults": self.defaults.to_json()}
        _CODEC.decode(data)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Snapshot:
        """Parse. Raises ValueError if a field is invalid or out of bounds, or the id is that of another source."""
        snapshot = _CODEC.decode(data)
        if snapshot.id != snapshot_id(snapshot.uri, snapshot.pin):
            raise ValueError("invalid snapshot: the id is that of another source or pin")
        return snapshot


_CODEC = JsonCodec(Snapshot, "snapshot")


def snapshot_id(uri: str, pin: str) -> str:
    """Return the id of the snapshot of a source at a pin: 32 hex digits."""
    digest = hashlib.sha256(f"{len(uri)}:{uri}{pin}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:_ID_DIGITS]


def blob_path(store: Path, sha256: str) -> Path:
    """Return the path of a blob. Raises ValueError if the digest is not a SHA-256 in lower-case hex digits."""
    return store / "blobs" / f"sha256-{_check_sha256(sha256)}"


def snapshot_folder(store: Path, id: str) -> Path:
    """Return the folder of a snapshot, whether it exists or not. Raises SourceError if ``id`` is not an id."""
    try:
        return store / "snapshots" / _check_id(id)
    except ValueError as error:
        raise SourceError(str(error)) from None


def snapshot_file(store: Path, id: str, name: str) -> Path:
    """Return the path of a snapshot's file. Raises SourceError if ``id`` or ``name`` is invalid."""
    try:
        return snapshot_folder(store, id) / check_file_name(name)
    except ValueError as error:
        raise SourceError(f"snapshot {id}: {error}") from None


def read_snapshot(store: Path, id: str) -> Snapshot:
    """Read a snapshot. Raises SourceError if it is missing, damaged or that of another id, and UnreadableSnapshot."""
    path = snapshot_folder(store, id) / METADATA_NAME
    try:
        snapshot = Snapshot.from_json(parse_received_object(_read_bounded(path), limit=SNAPSHOT_LIMIT))
    except FileNotFoundError:
        raise SourceError(f"the store {store} has no snapshot {id}: the source is not pulled yet") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in NO_FILE_ERRORS:
            raise UnreadableSnapshot(f"{path} cannot be read: {error}. Check the file system of the store") from error
        raise SourceError(f"{path} cannot be read: {error}. Delete its folder, and pull the source again") from error
    if snapshot.id != id:
        raise SourceError(f"{path} is the snapshot {snapshot.id}. Delete its folder, and pull the source again")
    return snapshot


def hold_snapshot(store: Path, id: str) -> int:
    """Protect a snapshot from collection until the returned file descriptor is closed, or the process ends.

    Read access is enough. On a file system without locks nothing is protected. Raises SourceError if the snapshot is
    missing.
    """
    path = snapshot_folder(store, id) / METADATA_NAME
    try:
        descriptor = _open(path)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if not os.path.samestat(os.fstat(descriptor), path.lstat()):
                raise FileNotFoundError
        except OSError:
            os.close(descriptor)
            raise
    except OSError:
        raise SourceError(f"the store {store} has no snapshot {id}: the source is not pulled yet") from None
    return descriptor


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)


def _read_bounded(path: Path) -> bytes:
    """Read a regular file of at most ``SNAPSHOT_LIMIT`` bytes; a FIFO or a device is never opened for long."""
    descriptor = _open(path)
    with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(SNAPSHOT_LIMIT + 1)
    if len(data) > SNAPSHOT_LIMIT:
        raise ValueError(f"it has more than {SNAPSHOT_LIMIT} bytes")
    return data
