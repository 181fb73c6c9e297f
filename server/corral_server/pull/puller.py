"""Pull of one source: resolve, look at the header, check the disk, download all files, translate, publish.

- A snapshot that exists is complete, so a pull of a known pin makes no request.
- ``LocationExpired``: the source is resolved again at the same pin and the download continues.
- ``FileChanged``: without a given pin the source is resolved again and the pull starts again. With one, what the pin
  names is gone: an error that only a change of the Model ends.
- ``ContentError``: it is recorded in the store (``failures.py``), so that the content is not downloaded again soon.
- Errors that a later attempt may not meet (TransientError, StoreFull) are the caller's to try again: the bytes that
  have arrived are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from corral_core.base.errors import SourceError
from corral_core.base.quantities import format_bytes
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.sources.snapshot import FileRole, Snapshot, SnapshotFile
from corral_core.sources.uri import parse_source, shown_uri
from corral_core.weights.gguf_metadata import ComputePlanner
from corral_core.weights.projector import ProjectorMetadata
from corral_server.pull.errors import ContentError, FileChanged, LocationExpired, StoreFull, TransientError
from corral_server.pull.failures import FailedDownloads
from corral_server.pull.progress import ProgressListener, PullProgress, PullStage
from corral_server.pull.remote_files import Archive, HttpLocation, RemoteFile, ResolvedSource
from corral_server.pull.remote_metadata import read_remote_metadata, read_remote_projector
from corral_server.pull.store import WeightsStore
from corral_server.pull.translated import translated_files
from corral_server.pull.transports import Transports

MAX_EXPIRED: Final = 3
"""Expired locations in a row before the header is read."""
MAX_CHANGES: Final = 3
"""Changes of the source during one pull."""

_NOWHERE: Final = HttpLocation("")
T = TypeVar("T")

FoundListener = Callable[[ResolvedSource, ModelMetadata | None], None]
"""Called once the source is resolved and its header is read, before the first byte of a file is stored."""


Refresh = Callable[[], RemoteFile]
"""Returns the same file with a new location."""


class FileDownloader(Protocol):
    """``download.downloader.Downloader``."""

    def fetch(self, file: RemoteFile, progress: ProgressListener, *, refresh: Refresh | None = None) -> SnapshotFile:
        """Bring the file into the store as a blob; ``refresh`` is called when its location has expired."""
        ...


def ignore_progress(_progress: PullProgress) -> None:
    """Take no notice of the progress."""


def ignore_found(_resolved: ResolvedSource, _metadata: ModelMetadata | None) -> None:
    """Take no notice of what was found."""


class Puller:
    """Pulls sources into one store, from the thread that calls it. ``clock`` returns seconds since the epoch."""

    def __init__(
        self,
        store: WeightsStore,
        transports: Transports,
        downloader: FileDownloader,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._failures = FailedDownloads(store.root, clock=clock)
        self._transports = transports
        self._downloader = downloader

    def resolve(self, uri: str, pin: str = "") -> ResolvedSource:
        """Return the files of the source; with a ``pin`` those of an earlier result.

        Raises SourceError and TransientError.
        """
        return self._transports.resolve(parse_source(uri), pin=pin)

    def inspect(self, resolved: ResolvedSource, plan: ComputePlanner | None = None) -> ModelMetadata | None:
        """Read the model's metadata by ranges, before the download. ``size`` counts all parts of the weights.

        None if only the whole file shows it (``read_remote_metadata``). Raises SourceError for weights that cannot be
        served, with what to do, and TransientError.
        """
        return read_remote_metadata(resolved, self._transports, self._local, plan=plan)

    def inspect_projector(self, resolved: ResolvedSource, roles: Sequence[FileRole]) -> ProjectorMetadata | None:
        """Read the header of a projector by ranges, before the download, as ``read_remote_projector`` does."""
        return read_remote_projector(resolved, self._transports, self._local, roles=roles)

    def pulled(self, uri: str, pin: str) -> Snapshot | None:
        """Return the complete snapshot of the source at a pin, None if the store has none."""
        return self._store.find(uri, pin)

    def missing_files(self, uri: str, pin: str) -> tuple[RemoteFile, ...]:
        """Return the files of a source if the store lacks its snapshot, else none.

        Raises ContentError if a pull would fail because of an earlier one, and what ``resolve`` raises.
        """
        return () if self._known(uri, pin, force=False) is not None else self.resolve(uri, pin).files

    def pull(
        self,
        uri: str,
        *,
        pin: str = "",
        progress: ProgressListener = ignore_progress,
        found: FoundListener | None = ignore_found,
        force: bool = False,
    ) -> Snapshot:
        """Return the snapshot of the source, downloaded as far as the store lacks it. Blocks until it is complete.

        ``progress`` is that of the whole pull. Without a ``found`` the header is not read before the download: the
        caller has inspected the source at this pin. With ``force``, content that was wrong is downloaded again now.
        Raises SourceError, TransientError and StoreFull.
        """
        for _ in range(MAX_CHANGES):
            snapshot = self._known(uri, pin, force=force) if pin else None
            if snapshot is not None:
                return snapshot
            progress(PullProgress(None, 0, 0.0, "", PullStage.RESOLVING))
            try:
                return self._pull_resolved(self.resolve(uri, pin), progress, found=found, force=force)
            except FileChanged as error:
                changed = error
                if pin:
                    break
        if pin:
            raise SourceError(
                f"source {shown_uri(uri)!r} does not have the pinned version ({pin}) any more: change the Model's "
                f"source to pull the present one ({changed})"
            )
        raise TransientError(f"source {shown_uri(uri)!r} changed {MAX_CHANGES} times while it was pulled: {changed}")

    def _known(self, uri: str, pin: str, *, force: bool) -> Snapshot | None:
        """Return the snapshot if the store has it. Raises ContentError if its download has failed not long ago."""
        snapshot = self.pulled(uri, pin)
        if snapshot is None and not force:
            self._failures.check(uri, pin)
        return snapshot

    def _pull_resolved(
        self, resolved: ResolvedSource, progress: ProgressListener, *, found: FoundListener | None, force: bool
    ) -> Snapshot:
        snapshot = self._known(resolved.uri, resolved.pin, force=force)
        if snapshot is not None:
            return snapshot
        locations = _Locations(self._transports, resolved)
        if found is not None:
            found(resolved, locations.refreshing(self.inspect))
        self._check_room(resolved)
        try:
            pulled = self._download(locations, progress)
            files = translated_files(self._store, pulled, progress)
        except ContentError as error:
            raise self._failures.record(resolved.uri, resolved.pin, error=error) from error
        done = sum(file.size for file in files)
        progress(PullProgress(done, done, 0.0, "", PullStage.PUBLISHING))
        snapshot = self._store.publish(resolved.uri, resolved.pin, files=files, defaults=resolved.defaults)
        self._store.release(file.sha256 for file in pulled)
        self._failures.forget(resolved.uri, resolved.pin)
        return snapshot

    def _check_room(self, resolved: ResolvedSource) -> None:
        """Raise StoreFull if all files together do not fit. The downloader checks each file exactly, when it begins."""
        missing = tuple(file for file in resolved.files if self._local(file) is None)
        needed = replace(resolved, files=missing).room
        begun = sum(path.stat().st_blocks * 512 for path in self._store.partial.glob("*"))
        free = self._store.free()
        if needed > free + begun:
            raise StoreFull(
                f"source {shown_uri(resolved.uri)!r} needs {format_bytes(needed)}; {format_bytes(free)} are free in "
                f"{self._store.root}. Delete what is not used (corral cache prune), or enlarge the volume "
                "(spec.cache.size)"
            )

    def _local(self, file: RemoteFile) -> Path | None:
        """Return the file if it is in the store, or in another folder that the store reads."""
        if file.sha256 is None or file.archive is not Archive.NONE:
            return None
        blob = self._store.blob(file.sha256, size=file.size)
        return blob or next(self._store.foreign_blobs(file.sha256, size=file.size), None)

    def _download(self, locations: _Locations, progress: ProgressListener) -> tuple[SnapshotFile, ...]:
        total = locations.resolved.size
        stored: list[SnapshotFile] = []
        for index, file in enumerate(locations.resolved.files):
            report = partial(_report, progress, total=total, before=sum(file.size for file in stored))
            stored.append(self._downloader.fetch(file, report, refresh=partial(locations.renewed, index)))
        return tuple(stored)


def _report(progress: ProgressListener, part: PullProgress, *, total: int | None, before: int) -> None:
    progress(replace(part, total=total, completed=before + part.completed))


class _Locations:
    """A resolved source whose locations are renewed when they have expired."""

    def __init__(self, transports: Transports, resolved: ResolvedSource) -> None:
        self.resolved = resolved
        self._transports = transports

    def refreshing(self, use: Callable[[ResolvedSource], T]) -> T:
        """Return ``use(resolved)``, called again with new locations after a LocationExpired."""
        for _ in range(MAX_EXPIRED):
            try:
                return use(self.resolved)
            except LocationExpired:
                self._renew()
        return use(self.resolved)

    def renewed(self, index: int) -> RemoteFile:
        """Resolve the source again at its pin and return the file. Raises FileChanged if it is another one."""
        self._renew()
        return self.resolved.files[index]

    def _renew(self) -> None:
        before = self.resolved
        after = self._transports.resolve(parse_source(before.uri), pin=before.pin)
        if [_content(file) for file in after.files] != [_content(file) for file in before.files]:
            raise FileChanged("its list of files is another one than at the start of the pull")
        self.resolved = after


def _content(file: RemoteFile) -> RemoteFile:
    """Return the file without its location."""
    return replace(file, location=_NOWHERE)
