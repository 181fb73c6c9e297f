"""Collection of what a store does not need: old partial files, unreferenced blobs, sources beyond a size limit.

- A source that is in use is never removed: it is in the given list, or a process holds it (``hold_snapshot``).
- The least recently used sources go first, and only until the store is within its limit.
- If a snapshot cannot be read although it may be intact, for example after an I/O error, no snapshot and no blob is
  removed. The links of a damaged snapshot protect its blobs until the snapshot itself is removed.
- A blob without a source stays until it has not been touched for a time: a pull publishes its blobs before its snapshot
  and touches them until then. If a blob is removed under a pull all the same, that pull fails and is tried again.
- What belongs to files that are pulled next stays, whatever its age: the pull continues with it.
- A failed download is forgotten when it is old, so that the next failure counts as the first one.
- A partial file stays while its download is locked, and until it has not been written for a time.
- In an Ollama models directory, blobs that a manifest of Ollama names are never removed.
- Ages are differences of the file system's own times: the clocks of several machines do not matter. After the clock was
  set back, what has a time in the future is as old as if it had been written now; it would stay forever otherwise.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral_core.sources.snapshot import METADATA_NAME, NO_FILE_ERRORS, UnreadableSnapshot, snapshot_folder
from corral_server.pull.download.partial import LOCK, partial_key
from corral_server.pull.download.published import FOLDER, note_path, published_digest
from corral_server.pull.errors import PullError
from corral_server.pull.failures import FAILURE_AGE, FailedDownloads
from corral_server.pull.remote_files import RemoteFile
from corral_server.pull.store import WeightsStore
from corral_server.pull.stored import (
    StoredSource,
    folders,
    linked_digests,
    ollama_digests,
    referenced,
    stored_blobs,
    stored_sources,
)
from corral_server.system.durable_files import temporary_name
from corral_server.system.file_locks import FileLock

DEFAULT_AGE: Final = 24 * 3600.0
MINIMUM_AGE: Final = 600.0
"""Seconds without a change that protect blobs and partial files from every collection; pulls renew it in time."""


@dataclass(frozen=True, slots=True)
class CollectPolicy:
    """``age`` in seconds, for partial files and unreferenced blobs; ``size_limit`` of all blobs in bytes, or None."""

    age: float = DEFAULT_AGE
    size_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed: ids of snapshots, digests, keys of partial downloads; ``size`` in bytes on disk."""

    snapshots: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    partials: tuple[str, ...] = ()
    size: int = 0


def collect(
    store: WeightsStore,
    policy: CollectPolicy | None = None,
    *,
    in_use: Collection[str] = (),
    pulling: Collection[RemoteFile] = (),
) -> Collected:
    """Remove what the policy says. Raises PullError.

    ``in_use`` are ids of snapshots that stay, ``pulling`` files whose blobs and partial downloads stay.
    """
    store.prepare()
    policy = policy or CollectPolicy()
    try:
        now = _file_system_now(store)
        age = max(policy.age, MINIMUM_AGE)
        _correct_times(store, now + MINIMUM_AGE)
        FailedDownloads(store.root).collect(now - FAILURE_AGE)
        _collect_notes(store, now - age, pulling=pulling)
        partials, freed = _collect_partials(store, now - age, kept={partial_key(file) for file in pulling})
        damaged = _collect_damaged(store, now - age, in_use=in_use)
        evicted = _evict(store, policy.size_limit, in_use=in_use, before=now - MINIMUM_AGE)
        needed = {published_digest(store.root, file) for file in pulling}
        blobs, freed_blobs = _collect_blobs(store, now - age, needed, evicted=evicted, evicted_before=now - MINIMUM_AGE)
    except UnreadableSnapshot as error:
        raise PullError(f"snapshots and blobs are not collected: {error}") from error
    except OSError as error:
        raise store.error(error, "collect what is not needed") from error
    removed = (*damaged, *(source.snapshot.id for source in evicted))
    return Collected(removed, tuple(blobs), tuple(partials), freed + freed_blobs)


def remove_source(store: WeightsStore, id: str) -> bool:
    """Remove a snapshot; its blobs go with the next collection. Returns False if it is in use or does not exist.

    Raises SourceError if ``id`` is not the id of a snapshot, and PullError.
    """
    try:
        return _remove_snapshot(snapshot_folder(store.root, id))
    except OSError as error:
        raise store.error(error, f"remove the snapshot {id}") from error


def remove_sources(store: WeightsStore, ids: Iterable[str]) -> list[str]:
    """Remove snapshots that no process holds, and the blobs that only they had. Return their ids. Raises PullError.

    Blobs that were touched within ``MINIMUM_AGE`` stay until a collection: a pull may be about to name them.
    """
    try:
        known = {source.snapshot.id: source for source in stored_sources(store, strict=True)}
        removed = [known[id] for id in ids if id in known and _remove_snapshot(snapshot_folder(store.root, id))]
        before = _file_system_now(store) - MINIMUM_AGE
        _collect_blobs(store, float("-inf"), (), evicted=removed, evicted_before=before)
    except UnreadableSnapshot as error:
        raise PullError(f"no blob is removed: {error}") from error
    except OSError as error:
        raise store.error(error, "remove what is not used") from error
    return [source.snapshot.id for source in removed]


def _file_system_now(store: WeightsStore) -> float:
    """Return the file system's time, in a way that needs no room: a store that is full is collected too."""
    os.utime(store.partial)
    return store.partial.stat().st_mtime


def _correct_times(store: WeightsStore, latest: float) -> None:
    """Set the times of change to now that are later than ``latest``."""
    for pattern in ("*/*", "snapshots/*/*"):
        for path in store.root.glob(pattern):
            with contextlib.suppress(OSError):  # such as a link to a file of another user
                if path.lstat().st_mtime > latest:
                    os.utime(path, follow_symlinks=False)


def _collect_notes(store: WeightsStore, before: float, *, pulling: Collection[RemoteFile]) -> None:
    """Remove the notes of published files that are older."""
    kept = {note_path(store.root, file) for file in pulling}
    for path in (store.root / FOLDER).glob("*"):
        if path not in kept and _modified(path) <= before:
            path.unlink(missing_ok=True)


def _collect_partials(store: WeightsStore, before: float, *, kept: Collection[str]) -> tuple[list[str], int]:
    """Remove partial downloads that have not changed since ``before`` and that no process has locked."""
    groups: dict[str, list[Path]] = {}
    for path in store.partial.iterdir():
        groups.setdefault(path.name if path.name.startswith(".") else path.name.partition(".")[0], []).append(path)
    removed, freed = [], 0
    for key, paths in groups.items():
        if key in kept or any(_modified(path) > before for path in paths):
            continue
        if key.startswith("."):  # of one process, without a lock, which would need room
            freed += sum(_remove_file(path) for path in paths)
        else:
            lock = FileLock(store.partial / f"{key}{LOCK}")
            if not lock.try_acquire():
                continue
            freed += sum(_remove_file(path) for path in paths if path.suffix != LOCK)
            lock.release(remove=True)
        removed.append(key)
    return removed, freed


def _collect_damaged(store: WeightsStore, before: float, *, in_use: Collection[str]) -> list[str]:
    """Remove damaged snapshots, and folders of publications that were never completed."""
    kept = {source.snapshot.id for source in stored_sources(store, strict=True)}.union(in_use)
    damaged = [path for path in folders(store) if path.name not in kept]
    removed = [path.name for path in damaged if _modified(path) <= before and _remove_snapshot(path)]
    for path in (store.root / "snapshots").glob(".*"):
        if _modified(path) <= before:
            shutil.rmtree(path, ignore_errors=True)
    return removed


def _evict(store: WeightsStore, limit: int | None, *, in_use: Collection[str], before: float) -> list[StoredSource]:
    """Remove the least recently used snapshots until the blobs of the others are within the limit."""
    if limit is None:
        return []
    sizes = {blob.sha256: blob.size for blob in stored_blobs(store)}
    kept, evicted = stored_sources(store, strict=True), []
    for source in tuple(kept):
        if sum(sizes.get(digest, 0) for digest in referenced(kept)) <= limit:
            break
        if source.snapshot.id in in_use or source.last_used > before:
            continue
        if _remove_snapshot(snapshot_folder(store.root, source.snapshot.id)):
            kept.remove(source)
            evicted.append(source)
    return evicted


def _remove_snapshot(folder: Path) -> bool:
    """Remove a snapshot's folder unless a process holds it; returns whether it was removed. Raises OSError."""
    try:
        descriptor = os.open(folder / METADATA_NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in NO_FILE_ERRORS:
            raise
        descriptor = -1  # nothing to hold
    try:
        if descriptor >= 0:
            _lock_unheld(descriptor)
        gone = folder.with_name(temporary_name(folder.name))
        folder.rename(gone)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _lock_unheld(descriptor: int) -> None:
    """Lock a snapshot. Raises BlockingIOError if a process holds it; without locks nothing can be held."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def _collect_blobs(
    store: WeightsStore,
    before: float,
    pulling: Collection[str | None],
    *,
    evicted: list[StoredSource],
    evicted_before: float,
) -> tuple[list[str], int]:
    """Remove blobs that nothing names: those of evicted sources, and others that are older than ``before``."""
    needed = referenced(stored_sources(store, strict=True)) | linked_digests(store) | ollama_digests(store)
    needed.update(digest for digest in pulling if digest is not None)
    dropped, removed, freed = referenced(evicted), [], 0
    for blob in stored_blobs(store):
        limit = evicted_before if blob.sha256 in dropped else before
        if blob.sha256 not in needed and _modified(blob.path) <= limit:
            freed += _remove_file(blob.path)
            removed.append(blob.sha256)
    return removed, freed


def _modified(path: Path) -> float:
    """Return the time of the last change, infinity if the file is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _remove_file(path: Path) -> int:
    """Remove a file and return the bytes that this frees; none if another name of the file is left."""
    try:
        status = path.lstat()
        path.unlink()
    except FileNotFoundError:
        return 0
    return status.st_blocks * 512 if status.st_nlink == 1 else 0
