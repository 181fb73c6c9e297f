"""What a store contains: pulled sources, blobs and partial downloads. Nothing is changed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.sources.snapshot import METADATA_NAME, NO_FILE_ERRORS, Snapshot, UnreadableSnapshot, read_snapshot
from corral_server.pull.download.partial import DATA, STATE
from corral_server.pull.download.state import load_state
from corral_server.pull.store import WeightsStore

_BLOB: Final = re.compile(r"sha256-([0-9a-f]{64})")
_DIGEST: Final = re.compile(rb"sha256[:-]([0-9a-f]{64})")
_MANIFEST_LIMIT: Final = 2**20


@dataclass(frozen=True, slots=True)
class StoredSource:
    """A pulled source. ``last_used`` in seconds since the epoch; ``complete`` is False if a blob is missing."""

    snapshot: Snapshot
    last_used: float
    complete: bool


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """``size`` in bytes on disk, 0 for a link to another file system; ``modified`` in seconds since the epoch."""

    sha256: str
    path: Path
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class StoredPartial:
    """A download that is not complete. ``completed``, ``total`` (None if not known) and ``size`` on disk in bytes."""

    key: str
    completed: int
    total: int | None
    size: int
    modified: float


def stored_sources(store: WeightsStore, *, strict: bool = False) -> list[StoredSource]:
    """Return the pulled sources, the least recently used one first; damaged snapshots are left out.

    Snapshots that may be intact but cannot be read are left out too; with ``strict`` they raise UnreadableSnapshot.
    """
    found = []
    for path in folders(store):
        try:
            snapshot = read_snapshot(store.root, path.name)
            complete = all(store.blob(file.sha256, size=file.size) for file in snapshot.files)
            found.append(StoredSource(snapshot, (path / METADATA_NAME).stat().st_mtime, complete))
        except UnreadableSnapshot:
            if strict:
                raise
        except SourceError:
            continue
        except OSError as error:
            if strict and error.errno not in NO_FILE_ERRORS:
                raise
    return sorted(found, key=lambda source: source.last_used)


def uploaded_ids(store: WeightsStore) -> set[str]:
    """Return the ids of the snapshots of weights that clients uploaded: they cannot be pulled again."""
    return {source.snapshot.id for source in stored_sources(store) if source.snapshot.uri.startswith("file:")}


def folders(store: WeightsStore) -> list[Path]:
    """Return the folders of the snapshots, damaged ones too, without those that are being written."""
    with contextlib.suppress(FileNotFoundError):
        return [path for path in (store.root / "snapshots").iterdir() if not path.name.startswith(".")]
    return []


def stored_blobs(store: WeightsStore) -> list[StoredBlob]:
    """Return the blobs of the store."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(store.root / "blobs") as entries:
        for entry in entries:
            match = _BLOB.fullmatch(entry.name)
            if match is not None:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    size = status.st_blocks * 512 if entry.is_file(follow_symlinks=False) else 0
                    found.append(StoredBlob(match[1], Path(entry.path), size, status.st_mtime))
    return found


def stored_partials(store: WeightsStore) -> list[StoredPartial]:
    """Return the downloads that are not complete."""
    found = []
    for path in sorted(store.partial.glob(f"*{DATA}")):
        with contextlib.suppress(OSError):
            status = path.stat()
            state = load_state(path.with_suffix(STATE))
            completed, total = (0, None) if state is None else (state.done().size, state.size)
            found.append(StoredPartial(path.stem, completed, total, status.st_blocks * 512, status.st_mtime))
    return found


def referenced(sources: list[StoredSource]) -> set[str]:
    """Return the digests of the blobs that the sources need."""
    return {file.sha256 for source in sources for file in source.snapshot.files}


def linked_digests(store: WeightsStore) -> set[str]:
    """Return the digests of the blobs that the links in all snapshot folders name, those of damaged snapshots too.

    Raises OSError if a folder cannot be read.
    """
    found: set[str] = set()
    for folder in folders(store):
        try:
            with os.scandir(folder) as entries:
                targets = [str(Path(entry).readlink()) for entry in entries if entry.is_symlink()]
        except (FileNotFoundError, NotADirectoryError):
            continue
        matches = (_BLOB.fullmatch(target.rpartition("/")[2]) for target in targets)
        found.update(match[1] for match in matches if match is not None)
    return found


def ollama_digests(store: WeightsStore) -> set[str]:
    """Return the digests that Ollama's manifests name, if the store is an Ollama models directory.

    The manifests are in ``manifests/<host>/<namespace>/<model>/<tag>`` (Ollama, manifest/paths.go). Raises OSError if
    one of them cannot be read.
    """
    found: set[str] = set()
    for path in _files(store.root / "manifests"):
        with path.open("rb") as file:
            found.update(digest.decode() for digest in _DIGEST.findall(file.read(_MANIFEST_LIMIT)))
    return found


def _files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    if folder.exists():
        for root, _, names in os.walk(folder, onerror=fail):
            yield from (Path(root, name) for name in names)
