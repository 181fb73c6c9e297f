"""Downloader: brings one remote file into a store.

In this order: a blob of the store; a download of another process, which is waited for; a blob of another folder,
verified and linked; the download. A file without a known digest, or in an archive, is the blob of an earlier download
of the same version if there is a note of it (``published.py``).

- The blob that is published has the digest: it is computed from the file on disk, whatever was resumed or repeated.
- A file whose digest differs, or whose tensors exceed it, is deleted and downloaded once more from zero; then the
  source is at fault.
- Cancellation ends within a second. What is on disk stays for the next attempt, after errors too.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from pathlib import Path
from typing import Final

from corral_core.sources.snapshot import SnapshotFile
from corral_server.pull.archives.extraction import extract
from corral_server.pull.download.attempt import Attempt, Downloaded, WrongContent
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.download.partial import MEMBER, Descriptor, PartialFile
from corral_server.pull.download.published import note_published, published_digest
from corral_server.pull.download.rates import RateLimit
from corral_server.pull.download.report import Report
from corral_server.pull.download.room import check_room
from corral_server.pull.download.transfer import Refresh
from corral_server.pull.errors import ContentError, FileChanged, PullCancelled, TransientError
from corral_server.pull.progress import ProgressListener, PullStage
from corral_server.pull.remote_files import Archive, RangeReader, RemoteFile
from corral_server.pull.store import WeightsStore

_LOCK_POLL: Final = 0.25
_HASH_CHUNK: Final = 2**20


class Downloader:
    """Downloads files into ``store`` by ``reader``. Thread-safe; the rate limit is shared by all of its downloads.

    ``cancel`` is set to end all of them.
    """

    def __init__(
        self,
        store: WeightsStore,
        reader: RangeReader,
        *,
        options: DownloadOptions | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._store = store
        self._reader = reader
        self._options = options or DownloadOptions()
        self._cancel = cancel or threading.Event()
        self._limit = RateLimit(self._options.rate_limit)

    def fetch(self, file: RemoteFile, progress: ProgressListener, *, refresh: Refresh | None = None) -> SnapshotFile:
        """Bring the file into the store as a blob. ``refresh`` resolves a location again that is not valid any more.

        Raises SourceError, StoreFull with the numbers, FileChanged, PullCancelled, and TransientError after the last
        attempt.
        """
        self._store.prepare()
        partial = PartialFile(self._store.partial, file)
        report = Report(file.name, progress, interval=self._options.progress_interval, keep=self._store.keep)
        try:
            found = self._existing(file) or self._acquire(partial, file, report=report)
            if found is not None:
                return found
            try:
                return (
                    self._existing(file)
                    or self._adopted(file, report)
                    or self._download(file, partial, report=report, refresh=refresh)
                )
            finally:
                partial.lock.release(remove=not partial.data.exists())
        except OSError as error:
            raise self._store.error(error, f"write {file.name}") from error

    def _existing(self, file: RemoteFile) -> SnapshotFile | None:
        """Return the file if the store has its blob."""
        sha256 = published_digest(self._store.root, file)
        size = file.size if file.archive is Archive.NONE else None
        blob = self._store.blob(sha256, size=size) if sha256 is not None else None
        if sha256 is None or blob is None:
            return None
        self._store.keep(sha256)
        return SnapshotFile(file.name, file.role, sha256, blob.stat().st_size)

    def _acquire(self, partial: PartialFile, file: RemoteFile, *, report: Report) -> SnapshotFile | None:
        """Acquire the lock of the download. Waits for another process; returns the file if that one published it."""
        while not partial.lock.try_acquire():
            self._check_cancelled(file)
            if (found := self._existing(file)) is not None:
                return found
            completed, total = partial.completed()
            report(PullStage.PULLING, completed, total=total if total is not None else file.size)
            self._cancel.wait(_LOCK_POLL)
        return None

    def _adopted(self, file: RemoteFile, report: Report) -> SnapshotFile | None:
        """Link the blob of another folder if it has the digest."""
        if file.sha256 is None or file.archive is not Archive.NONE:
            return None
        for path in self._store.foreign_blobs(file.sha256, size=file.size):
            with contextlib.suppress(OSError):
                if self._digest(path, file, report=report) == file.sha256:
                    self._store.link_blob(path, file.sha256)
                    return self._existing(file)
        return None

    def _digest(self, path: Path, file: RemoteFile, *, report: Report) -> str:
        digest, done = hashlib.sha256(), 0
        with path.open("rb", buffering=0) as source:
            while chunk := source.read(_HASH_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                self._check_cancelled(file)
                report(PullStage.VERIFYING, done, total=file.size)
        return digest.hexdigest()

    def _download(
        self, file: RemoteFile, partial: PartialFile, *, report: Report, refresh: Refresh | None
    ) -> SnapshotFile:
        done = self._verified(file, partial, report=report, refresh=refresh)
        report(PullStage.PUBLISHING, done.size, total=done.size)
        if file.archive is Archive.NONE:
            self._store.publish_blob(partial.data, done.descriptor.number, done.sha256)
            result = SnapshotFile(file.name, file.role, done.sha256, done.size)
        else:
            result = self._extract(file, partial, report=report)
        note_published(self._store.root, file, sha256=result.sha256)
        partial.discard()
        return result

    def _verified(
        self, file: RemoteFile, partial: PartialFile, *, report: Report, refresh: Refresh | None
    ) -> Downloaded:
        """Download; wrong content is downloaded once more. Raises ContentError if it is wrong again."""
        errors: list[WrongContent] = []
        while len(errors) < 2:
            attempt = Attempt(
                self._store,
                file,
                partial=partial,
                reader=self._reader,
                options=self._options,
                limit=self._limit,
                cancel=self._cancel,
                report=report,
                refresh=refresh,
            )
            try:
                return attempt.run()
            except FileChanged:
                if file.size is None:
                    partial.discard()  # its size may be the one that was wrong
                raise
            except WrongContent as error:
                attempt.discard()
                errors.append(error)
        first, second = errors
        if first.end != second.end:
            raise TransientError(f"{second}, at another byte than the time before")
        raise ContentError(
            f"{second}, twice: the server, or a proxy on the way, sends another file than the source names. "
            "Try another network or another source"
        )

    def _extract(self, file: RemoteFile, partial: PartialFile, *, report: Report) -> SnapshotFile:
        """Extract the wanted file of the downloaded archive and publish it."""
        path = partial.data.with_suffix(MEMBER)
        path.unlink(missing_ok=True)
        target, sizes = Descriptor(path), [0]

        def on_size(size: int) -> None:
            check_room(self._store, size, name=file.name, key=partial.key)
            sizes[0] = size

        def on_bytes(count: int) -> None:
            self._check_cancelled(file)
            report(PullStage.VERIFYING, count, total=sizes[0])

        try:
            sha256 = extract(
                partial.data, file.archive, member=file.member, target=target.number, on_size=on_size, on_bytes=on_bytes
            )
            self._store.publish_blob(path, target.number, sha256)
        except ContentError:
            partial.discard()
            raise
        finally:
            path.unlink(missing_ok=True)
        return SnapshotFile(file.name, file.role, sha256, sizes[0])

    def _check_cancelled(self, file: RemoteFile) -> None:
        if self._cancel.is_set():
            raise PullCancelled(f"the pull of {file.name} was cancelled; what is on disk stays for the next one")
