"""Store of pulled weights; ``corral_core.sources.snapshot`` has its layout.

- A blob is published by rename, after its content was verified and synced. A blob that exists is complete.
- A snapshot is published by rename after its blobs. One whose blobs are missing does not count.
- The store is right with any number of writers: they rename to the same names with the same content.
- A blob that is not referenced yet is protected by its age (``collect.py``). ``keep`` renews it during long pulls.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.base.quantities import format_bytes
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_core.sources.snapshot import (
    METADATA_NAME,
    SNAPSHOT_LIMIT,
    Snapshot,
    SnapshotFile,
    blob_path,
    read_snapshot,
    snapshot_folder,
    snapshot_id,
)
from corral_server.pull.errors import PullError, StoreFull
from corral_server.system.durable_files import sync_folder, temporary_name, write_durably

FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BLOB_MODE: Final = 0o444


class WeightsStore:
    """Store in the folder ``root``, which is created when it is first written.

    ``also_read`` are folders with blobs of the same naming, such as ``blobs/`` of an Ollama models directory: what is
    there is linked instead of downloaded. ``size_limit`` bounds the store's bytes on disk, None for no bound but the
    file system's. Methods are thread-safe.
    """

    def __init__(self, root: Path, *, also_read: Sequence[Path] = (), size_limit: int | None = None) -> None:
        self.root = root
        self.also_read = tuple(also_read)
        self.size_limit = size_limit
        self._kept: set[str] = set()

    @property
    def partial(self) -> Path:
        """Folder of the downloads that are not complete."""
        return self.root / "partial"

    def prepare(self) -> None:
        """Create the store's folders. Raises PullError if it cannot be written."""
        try:
            for name in ("blobs", "snapshots", "partial"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.error(error, "create the store") from error

    def blob(self, sha256: str, *, size: int | None = None) -> Path | None:
        """Return the path of a blob if the store has it, with the given size in bytes if one is given."""
        path = blob_path(self.root, sha256)
        try:
            status = path.stat()
        except OSError:
            return None
        return path if stat.S_ISREG(status.st_mode) and size in (None, status.st_size) else None

    def foreign_blobs(self, sha256: str, *, size: int | None = None) -> Iterator[Path]:
        """Yield the files of the ``also_read`` folders that have the digest in their name and the size."""
        for folder in self.also_read:
            path = folder / blob_path(self.root, sha256).name
            with contextlib.suppress(OSError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode) and size in (None, status.st_size):
                    yield path.resolve()

    def link_blob(self, path: Path, sha256: str) -> None:
        """Publish a verified file of another folder as a blob: by hard link where that is possible, else symbolic."""
        temporary = self.partial / temporary_name(f"sha256-{sha256}")
        try:
            try:
                os.link(path, temporary)
            except OSError:
                temporary.symlink_to(path)
            temporary.replace(blob_path(self.root, sha256))
            sync_folder(self.root / "blobs")
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self.error(error, f"link {path}") from error
        self._kept.add(sha256)

    def publish_blob(self, partial: Path, descriptor: int, sha256: str) -> None:
        """Publish the verified file ``partial``, which is open as ``descriptor``. Raises PullError.

        Does nothing if another process, which took over the lock of this one, published or replaced the file.
        """
        try:
            os.fsync(descriptor)
            with contextlib.suppress(OSError):  # some network file systems have no modes
                os.fchmod(descriptor, _BLOB_MODE)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), partial.stat()):
                    partial.rename(blob_path(self.root, sha256))
            if self.blob(sha256) is None:
                raise PullError(f"another process removed {partial} during the download: pull again")
            sync_folder(self.root / "blobs")
        except OSError as error:
            raise self.error(error, f"publish {partial.name}") from error
        self._kept.add(sha256)

    def keep(self, sha256: str = "") -> None:
        """Protect the blob, and all that were published or kept without a snapshot, from collection by age."""
        if sha256:
            self._kept.add(sha256)
        for digest in tuple(self._kept):
            with contextlib.suppress(OSError):
                os.utime(blob_path(self.root, digest), follow_symlinks=False)

    def release(self, digests: Iterable[str]) -> None:
        """End the protection of blobs that a finished pull does not need, such as those that were translated."""
        self._kept.difference_update(digests)

    def find(self, uri: str, pin: str) -> Snapshot | None:
        """Return the snapshot of a source at a pin and note its use; None if it is missing, damaged or lacks a blob."""
        with contextlib.suppress(SourceError):
            snapshot = read_snapshot(self.root, snapshot_id(uri, pin))
            folder = snapshot_folder(self.root, snapshot.id)
            if all(self.blob(file.sha256, size=file.size) for file in snapshot.files) and all(
                (folder / file.name).exists() for file in snapshot.files
            ):
                self.touch(snapshot.id)
                return snapshot
        return None

    def touch(self, id: str) -> None:
        """Note that a snapshot is used now, where the store can be written."""
        with contextlib.suppress(OSError):
            os.utime(snapshot_folder(self.root, id) / METADATA_NAME, follow_symlinks=False)

    def publish(
        self, uri: str, pin: str, *, files: Sequence[SnapshotFile], defaults: SourceDefaults = NO_DEFAULTS
    ) -> Snapshot:
        """Publish the files, whose blobs the store has, as the snapshot of the source at the pin.

        Raises SourceError if a name or what the source brings is invalid, and PullError if the store cannot be written.
        """
        snapshot = Snapshot(snapshot_id(uri, pin), uri, pin, tuple(files), defaults)
        data = _encoded(snapshot)
        missing = [file.name for file in snapshot.files if self.blob(file.sha256, size=file.size) is None]
        if missing:
            raise PullError(f"{missing[0]} was removed from the store {self.root} during the pull: pull again")
        if self.find(uri, pin) != snapshot:
            try:
                self._replace_snapshot(snapshot, data)
            except OSError as error:
                raise self.error(error, "publish the snapshot") from error
        self.release(file.sha256 for file in snapshot.files)
        return snapshot

    def _replace_snapshot(self, snapshot: Snapshot, data: bytes) -> None:
        target = snapshot_folder(self.root, snapshot.id)
        temporary = target.with_name(temporary_name(snapshot.id))
        temporary.mkdir(parents=True)
        try:
            for file in snapshot.files:
                (temporary / file.name).symlink_to(Path("..", "..", "blobs", f"sha256-{file.sha256}"))
            write_durably(temporary / METADATA_NAME, data)
            while not _renamed(temporary, target):
                old = target.with_name(temporary_name(snapshot.id))
                with contextlib.suppress(FileNotFoundError):
                    target.rename(old)
                shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(target.parent)

    def error(self, error: OSError, action: str) -> PullError:
        """Return the pull error of an operating system's error; StoreFull has the numbers."""
        if error.errno in FULL_ERRORS:
            return StoreFull(f"cannot {action}: {format_bytes(self.free())} are free in {self.root} ({error.strerror})")
        return PullError(
            f"cannot {action} in {self.root}: {error.strerror or error}. Check that the folder can be written"
        )

    def free(self) -> int:
        """Return the bytes that can be written: of the file system, and of the size limit if there is one."""
        folder = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        return free if self.size_limit is None else max(0, min(free, self.size_limit - self.used()))

    def used(self) -> int:
        """Return the bytes that blobs and partial downloads take on disk."""
        total = 0
        for name in ("blobs", "partial"):
            with contextlib.suppress(FileNotFoundError), os.scandir(self.root / name) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total


def _renamed(source: Path, target: Path) -> bool:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


def _encoded(snapshot: Snapshot) -> bytes:
    try:
        data = json.dumps(snapshot.to_json(), indent=1).encode()
    except ValueError as error:
        raise SourceError(f"{snapshot.uri} cannot be published: {error}") from error
    if len(data) > SNAPSHOT_LIMIT:
        raise SourceError(
            f"{snapshot.uri} cannot be published: its templates and licenses have more than {SNAPSHOT_LIMIT} bytes"
        )
    return data
