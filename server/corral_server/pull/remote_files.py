"""Remote files: what a resolver returns and the downloader reads.

- A ``ResolvedSource`` is pinned: its files are those of one manifest digest, commit, ETag or version id.
- A file's ``name`` is a plain file name without folders; it is its name in the snapshot.
- Parts of a split GGUF file have names ``...-00001-of-0000N.gguf``, since llama.cpp finds the others by the first.
- Locations may carry credentials: they are never logged, and ``__repr__`` leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_core.sources.snapshot import FileRole as FileRole


class Archive(StrEnum):
    """Format of the remote bytes: the file itself, or an archive that contains it as ``RemoteFile.member``."""

    NONE = ""
    TAR = "tar"
    TAR_GZIP = "tar+gzip"
    TAR_ZSTD = "tar+zstd"


@dataclass(frozen=True, slots=True)
class HttpLocation:
    """``headers`` are sent to the URL's host alone, not to the host of a redirect."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ObjectLocation:
    """An object of a bucket; ``uri`` is ``s3://``, ``gs://`` or ``az://``, ``version`` a version id or empty."""

    uri: str
    version: str = ""


Location = HttpLocation | ObjectLocation


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """``size`` in bytes and ``sha256`` (hex digits) are None if the server does not say them.

    ``version`` is an ETag or version id that each response must repeat, empty if there is none. With an ``archive``,
    ``size`` and ``sha256`` are the archive's and ``member`` is the path in it, or a pattern as of ``fnmatch``;
    ``member_size`` is the member's in bytes, None if it is not known.
    """

    name: str
    role: FileRole
    location: Location
    size: int | None = None
    sha256: str | None = None
    version: str = ""
    archive: Archive = Archive.NONE
    member: str = ""
    member_size: int | None = None

    @property
    def stored_size(self) -> int | None:
        """Bytes of the blob, None if not known."""
        return self.size if self.archive is Archive.NONE else self.member_size


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """``pin`` identifies the resolved content: a manifest digest, a commit, an ETag or a version id.

    ``image_path`` is the path of the weights (of a split file its first part) in a container image that a container
    runtime can mount, empty if the source is something else.
    """

    uri: str
    pin: str
    files: tuple[RemoteFile, ...]
    defaults: SourceDefaults = NO_DEFAULTS
    image_path: str = ""

    @property
    def size(self) -> int | None:
        """Sum of the sizes in bytes, None if one of them is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def room(self) -> int:
        """Bytes that a store needs while the files are pulled, as far as sizes are known.

        An archive stays until its file is extracted. A file of unknown size is taken to be as large as its archive.
        """
        archives = [file.size or 0 for file in self.files if file.archive is not Archive.NONE]
        return sum(file.stored_size or file.size or 0 for file in self.files) + max(archives, default=0)


class ByteStream(Protocol):
    """Body of a response. ``start`` is the offset of its first byte in the file, 0 if the server ignored the range.

    ``total`` is the size of the whole file, None if not known; ``version`` is its ETag or version id, or empty.
    """

    start: int
    total: int | None
    version: str

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer and return the number of bytes, 0 at the end. Raises TransientError."""
        ...

    def close(self) -> None: ...


class RangeReader(Protocol):
    """Reads ranges of remote files; thread-safe."""

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> ByteStream:
        """Open the bytes from ``start`` up to but without ``end``.

        Raises SourceError (the text says what to do), TransientError and LocationExpired.
        """
        ...


class Resolver(Protocol):
    """Turns a source into its files; one per scheme or family of schemes."""

    def resolve(self, source: object, *, pin: str = "") -> ResolvedSource:
        """Return the files; with a ``pin`` those of an earlier result.

        Raises SourceError, TransientError, and FileChanged if the server does not have the pinned content any more.
        """
        ...
