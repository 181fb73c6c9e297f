"""Partial file: data, state and lock of one download, under one key in the store's folder of partial files.

The key is the digest where it is known, so that two sources of one file share a download; else it is derived from the
location without its query, which may be a signature.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import replace
from pathlib import Path

from corral_server.pull.download.state import DownloadState, load_state
from corral_server.pull.remote_files import HttpLocation, RemoteFile
from corral_server.system.file_locks import FileLock

DATA, STATE, LOCK, MEMBER = ".data", ".json", ".lock", ".member"


class Descriptor:
    """Open file that is closed with its last reference: a connection that was given up may still hold one."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o664)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.number)


def partial_key(file: RemoteFile) -> str:
    """Return the key of a file: a plain file name."""
    if file.sha256 is not None:
        return f"sha256-{file.sha256}"
    location = file.location
    where = location.url.partition("?")[0] if isinstance(location, HttpLocation) else location.uri
    return "source-" + hashlib.sha256(f"{file.name} {where}".encode("utf-8", "surrogatepass")).hexdigest()


def file_identity(file: RemoteFile) -> str:
    """Return what is equal for two files of the same content."""
    return f"{partial_key(file)} {file.size}" + ("" if file.sha256 else f" {file.version}")


class PartialFile:
    """Paths and lock of one key. An instance is used by one thread."""

    def __init__(self, folder: Path, file: RemoteFile) -> None:
        self._file = file
        self.key = partial_key(file)
        self.data = folder / f"{self.key}{DATA}"
        self.state = folder / f"{self.key}{STATE}"
        self.lock = FileLock(folder / f"{self.key}{LOCK}")

    @property
    def identity(self) -> str:
        """What must be equal for a download to continue."""
        return file_identity(self._file)

    def resume(self) -> DownloadState:
        """Return the state to continue from: that of the same content, else an empty one."""
        state = load_state(self.state)
        empty = DownloadState(self.identity, self._file.version, self._file.size, ())
        if state is None or state.identity != self.identity or state.size is None:
            return empty
        if self._file.sha256 is None and not state.version:
            return empty
        try:
            complete = self.data.stat().st_size >= state.done().end
        except OSError:
            complete = False
        if not complete:
            return empty
        return state if self._file.sha256 is None else replace(state, version=self._file.version)

    def completed(self) -> tuple[int, int | None]:
        """Return the bytes that another process has completed, as far as its state says, and the file's size."""
        state = load_state(self.state)
        return (0, None) if state is None else (state.done().size, state.size)

    def discard(self) -> None:
        """Delete data and state. The state goes first: without it the data means nothing."""
        self.state.unlink(missing_ok=True)
        self.data.unlink(missing_ok=True)
