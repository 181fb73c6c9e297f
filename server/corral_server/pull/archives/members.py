"""Files of an archive that is read as a stream: decompression with a bound, and the search for one file."""

from __future__ import annotations

import fnmatch
import gzip
import zlib
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol, cast

import zstandard

from corral_core.base.errors import SourceError
from corral_server.pull.archives.tar import TarEntry, TarReader
from corral_server.pull.errors import ContentError
from corral_server.pull.remote_files import Archive

_MAX_WINDOW: Final = 2**27
"""Memory of a zstd stream: the window that the command ``zstd`` accepts by default."""


class Readable(Protocol):
    """``read`` returns at most as many bytes as it is asked for, and none only at the end."""

    def read(self, size: int, /) -> bytes: ...


class Decompressed:
    """Decompressed bytes of an archive, at most ``bound``; beyond it ``refused()`` is raised.

    Raises ContentError for damaged data.
    """

    def __init__(
        self, file: Readable, kind: Archive, *, name: str, bound: int, refused: Callable[[], Exception]
    ) -> None:
        self._source = _decompressor(file, kind)
        self._name = name
        self._left = bound
        self._refused = refused

    def read(self, size: int) -> bytes:
        try:
            chunk = self._source.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise ContentError(f"the archive of {self._name} is damaged: {error}") from error
        self._left -= len(chunk)
        if self._left < 0:
            raise self._refused()
        return chunk


def find_member(tar: TarReader, member: str) -> TarEntry:
    """Return the regular file ``member``, a path or a pattern of ``fnmatch``, whose data is read next.

    Raises ContentError if the archive has none, and ValueError if it is damaged.
    """
    wanted = _plain(member)
    while (entry := tar.next()) is not None:
        name = _plain(entry.name)
        if entry.regular and (name == wanted or fnmatch.fnmatchcase(name, wanted)):
            return entry
    raise ContentError(f"the archive has no file {member!r}; check the source's path")


def damaged(name: str, error: ValueError) -> SourceError:
    return ContentError(f"the archive of {name} is damaged: {error}")


def _decompressor(file: Readable, kind: Archive) -> Readable:
    source = cast("BinaryIO", file)  # both read from it, and nothing else
    if kind is Archive.TAR_GZIP:
        return gzip.GzipFile(fileobj=source, mode="rb")
    if kind is Archive.TAR_ZSTD:
        return zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(source, read_across_frames=True)
    return file


def _plain(name: str) -> str:
    return name.removeprefix("./").lstrip("/")
