"""Collection: what is removed, and what is never removed."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.sources.snapshot import FileRole, Snapshot, SnapshotFile, blob_path, hold_snapshot, snapshot_folder
from corral_server.pull.collect import MINIMUM_AGE, Collected, CollectPolicy, collect, remove_source
from corral_server.pull.download.partial import partial_key
from corral_server.pull.download.published import note_path, note_published
from corral_server.pull.errors import ContentError, PullError
from corral_server.pull.failures import FAILURE_AGE, FailedDownloads
from corral_server.pull.remote_files import HttpLocation, RemoteFile
from corral_server.pull.store import WeightsStore
from corral_server.pull.stored import stored_blobs, stored_partials, stored_sources
from corral_server.system.file_locks import FileLock

DAY = 24 * 3600.0
SIZE = 100_000


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    store = WeightsStore(tmp_path / "store")
    store.prepare()
    return store


def age(path: Path, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(path, (past, past), follow_symlinks=False)


def put(store: WeightsStore, letter: str, *, old: float = 2 * DAY) -> SnapshotFile:
    content = letter.encode() * SIZE
    digest = hashlib.sha256(content).hexdigest()
    path = store.partial / digest
    path.write_bytes(content)
    with path.open("rb") as file:
        store.publish_blob(path, file.fileno(), digest)
    age(blob_path(store.root, digest), old)
    return SnapshotFile(f"{letter}.gguf", FileRole.WEIGHTS, digest, SIZE)


def publish(store: WeightsStore, letters: str, *, used: float) -> Snapshot:
    """Publish a source of one file for each letter, used so many seconds ago."""
    snapshot = store.publish(f"hf://org/{letters}", "1", files=[put(store, letter) for letter in letters])
    age(snapshot_folder(store.root, snapshot.id) / "snapshot.json", used)
    age(snapshot_folder(store.root, snapshot.id), used)
    return snapshot


def letters(store: WeightsStore) -> list[str]:
    return [source.snapshot.uri.rpartition("/")[2] for source in stored_sources(store)]


def test_a_store_that_is_needed_stays(store: WeightsStore) -> None:
    publish(store, "a", used=100 * DAY)
    publish(store, "bc", used=DAY)
    assert collect(store) == Collected()
    assert letters(store) == ["a", "bc"]
    assert all(source.complete for source in stored_sources(store))
    assert {blob.size >= SIZE for blob in stored_blobs(store)} == {True}


def test_blobs_without_a_source_go_by_age(store: WeightsStore) -> None:
    old, young = put(store, "a"), put(store, "b", old=DAY / 2)
    found = collect(store)
    assert found.blobs == (old.sha256,)
    assert found.size >= SIZE
    assert store.blob(young.sha256) is not None
    assert collect(store, CollectPolicy(age=0)).blobs == (young.sha256,)


def test_times_in_the_future_count_as_now_after_the_clock_was_set_back(store: WeightsStore) -> None:
    snapshot, blob = publish(store, "a", used=-400 * DAY), put(store, "b", old=-400 * DAY)
    paths = [*partial(store, "sha256-1", old=-400 * DAY), blob_path(store.root, blob.sha256)]
    paths.append(snapshot_folder(store.root, snapshot.id) / "snapshot.json")
    assert collect(store, CollectPolicy(age=0, size_limit=0)) == Collected()
    assert all(abs(path.lstat().st_mtime - time.time()) < 600 for path in paths)


def test_a_blob_that_a_pull_keeps_is_young(store: WeightsStore) -> None:
    file = put(store, "a")
    store.keep(file.sha256)
    assert collect(store, CollectPolicy(age=0)) == Collected()


def test_the_least_recently_used_sources_go_first(store: WeightsStore) -> None:
    publish(store, "a", used=3 * DAY)
    publish(store, "b", used=DAY)
    publish(store, "c", used=2 * DAY)
    found = collect(store, CollectPolicy(size_limit=2 * SIZE + 50_000))
    assert letters(store) == ["c", "b"]
    assert len(found.snapshots) == len(found.blobs) == 1
    assert store.find("hf://org/c", "1") is not None
    collect(store, CollectPolicy(size_limit=SIZE + 50_000))
    assert letters(store) == ["c"]


def test_a_blob_of_two_sources_stays_with_the_second(store: WeightsStore) -> None:
    publish(store, "ab", used=3 * DAY)
    publish(store, "b", used=DAY)
    collect(store, CollectPolicy(size_limit=SIZE + 50_000))
    assert letters(store) == ["b"]
    assert len(stored_blobs(store)) == 1
    assert stored_sources(store)[0].complete


def test_a_source_in_use_is_never_removed(store: WeightsStore) -> None:
    listed = publish(store, "a", used=9 * DAY)
    held = publish(store, "b", used=8 * DAY)
    publish(store, "c", used=MINIMUM_AGE / 2)
    descriptor = hold_snapshot(store.root, held.id)
    try:
        assert collect(store, CollectPolicy(size_limit=0), in_use={listed.id}) == Collected()
        assert not remove_source(store, held.id)
    finally:
        os.close(descriptor)
    assert collect(store, CollectPolicy(size_limit=0)).snapshots == (listed.id, held.id)
    assert letters(store) == ["c"]


def test_a_source_is_removed_by_its_id(store: WeightsStore) -> None:
    snapshot = publish(store, "a", used=0)
    assert remove_source(store, snapshot.id)
    assert not remove_source(store, snapshot.id)
    with pytest.raises(SourceError, match="not pulled yet"):
        hold_snapshot(store.root, snapshot.id)
    with pytest.raises(SourceError, match="not the id"):
        remove_source(store, "../blobs")
    assert len(collect(store).blobs) == 1
    assert list((store.root / "snapshots").iterdir()) == []


def test_damaged_snapshots_and_publications_go_by_age(store: WeightsStore) -> None:
    old, young = publish(store, "a", used=0), publish(store, "b", used=0)
    for snapshot in (old, young):
        (snapshot_folder(store.root, snapshot.id) / "snapshot.json").write_text("{")
    unfinished = store.root / "snapshots" / ".unfinished.tmp"
    unfinished.mkdir()
    for path in (unfinished, snapshot_folder(store.root, old.id)):
        age(path, 2 * DAY)
    assert collect(store).snapshots == (old.id,)
    assert [path.name for path in (store.root / "snapshots").iterdir()] == [young.id]


def test_nothing_is_removed_when_a_snapshot_cannot_be_read(
    store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = publish(store, "a", used=9 * DAY)
    publish(store, "b", used=9 * DAY)
    metadata = snapshot_folder(store.root, broken.id) / "snapshot.json"
    opened = os.open

    def fail(path: os.PathLike[str], *rest: int) -> int:
        if Path(path) == metadata:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        assert letters(store) == ["b"]
        with pytest.raises(PullError, match=r"not collected.*Input/output error"):
            collect(store, CollectPolicy(size_limit=0))
        with pytest.raises(PullError, match="Input/output error"):
            remove_source(store, broken.id)
    assert letters(store) == ["a", "b"]
    assert all(source.complete for source in stored_sources(store))


def test_the_links_of_a_damaged_snapshot_protect_its_blobs(store: WeightsStore) -> None:
    snapshot = publish(store, "a", used=0)
    (snapshot_folder(store.root, snapshot.id) / "snapshot.json").write_text("{")
    assert collect(store) == Collected()
    age(snapshot_folder(store.root, snapshot.id), 2 * DAY)
    assert collect(store, in_use={snapshot.id}) == Collected()
    assert len(stored_blobs(store)) == 1
    found = collect(store)
    assert found.snapshots == (snapshot.id,)
    assert len(found.blobs) == 1


def test_what_is_no_snapshot_folder_goes_by_age(store: WeightsStore) -> None:
    folder = store.root / "snapshots"
    (folder / "file").write_text("x")
    (folder / "linked").mkdir()
    (folder / "linked" / "snapshot.json").symlink_to("snapshot.json")
    for path in folder.iterdir():
        age(path, 2 * DAY)
    assert sorted(collect(store).snapshots) == ["file", "linked"]


def partial(store: WeightsStore, key: str, *, old: float) -> list[Path]:
    paths = [store.partial / f"{key}{suffix}" for suffix in (".data", ".json", ".lock", ".member")]
    for path in paths:
        path.write_bytes(b"x" * 5000)
        age(path, old)
    return paths


def test_partial_files_go_by_age_unless_they_are_locked(store: WeightsStore) -> None:
    old, locked = partial(store, "sha256-1", old=2 * DAY), partial(store, "sha256-2", old=2 * DAY)
    young = partial(store, "source-3", old=2 * DAY)
    age(young[0], DAY / 2)
    forgotten = store.partial / ".sha256-1.abc.tmp"
    forgotten.write_bytes(b"x")
    age(forgotten, 2 * DAY)
    assert [item.key for item in stored_partials(store)] == ["sha256-1", "sha256-2", "source-3"]
    lock = FileLock(locked[2])
    assert lock.try_acquire()
    found = collect(store)
    assert sorted(found.partials) == [".sha256-1.abc.tmp", "sha256-1"]
    assert found.size > 0
    assert not any(path.exists() for path in (*old, forgotten))
    assert all(path.exists() for path in (*locked, *young))
    lock.release()
    assert collect(store).partials == ("sha256-2",)
    assert {path.name for path in store.partial.iterdir()} == {path.name for path in young}


def remote(digest: str | None) -> RemoteFile:
    location = HttpLocation("https://host/a.gguf")
    return RemoteFile("a.gguf", FileRole.WEIGHTS, location, SIZE, digest, version="" if digest else "v1")


def test_what_belongs_to_files_that_are_pulled_next_stays(store: WeightsStore) -> None:
    known, unknown = put(store, "a"), put(store, "b")
    files = [remote(known.sha256), remote(None)]
    note_published(store.root, files[1], sha256=unknown.sha256)
    age(note_path(store.root, files[1]), 2 * DAY)
    for file in files:
        partial(store, partial_key(file), old=2 * DAY)
    assert collect(store, CollectPolicy(age=0), pulling=files) == Collected()
    found = collect(store)
    assert sorted(found.blobs) == sorted((known.sha256, unknown.sha256))
    assert len(found.partials) == 2
    assert not note_path(store.root, files[1]).exists()


def test_a_failed_download_is_forgotten_when_it_is_old(store: WeightsStore) -> None:
    failures = FailedDownloads(store.root)
    failures.record("hf://org/a", "1", error=ContentError("wrong digest"))
    (path,) = (store.root / "failures").iterdir()
    age(path, FAILURE_AGE - DAY)
    collect(store, CollectPolicy(age=0))
    assert path.exists()
    age(path, FAILURE_AGE + DAY)
    collect(store)
    assert not path.exists()


def test_what_ollama_needs_is_not_removed(store: WeightsStore) -> None:
    needed, other = put(store, "a"), put(store, "b")
    manifest = store.root / "manifests" / "registry.ollama.ai" / "library" / "model" / "latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(f'{{"layers": [{{"digest": "sha256:{needed.sha256}"}}]}}')
    (store.root / "blobs" / f"sha256-{other.sha256}-partial").write_bytes(b"of Ollama")
    assert collect(store).blobs == (other.sha256,)
    assert (store.root / "blobs" / f"sha256-{other.sha256}-partial").exists()


def test_nothing_is_removed_when_a_manifest_of_ollama_cannot_be_read(store: WeightsStore) -> None:
    put(store, "a")
    (store.root / "manifests").mkdir()
    (store.root / "manifests" / "latest").symlink_to("missing")
    with pytest.raises(PullError, match="collect"):
        collect(store)
    assert len(stored_blobs(store)) == 1


def test_a_linked_blob_frees_nothing_and_its_original_stays(tmp_path: Path) -> None:
    content = b"x" * SIZE
    digest = hashlib.sha256(content).hexdigest()
    original = tmp_path / f"sha256-{digest}"
    original.write_bytes(content)
    store = WeightsStore(tmp_path / "store", also_read=[tmp_path])
    store.prepare()
    store.link_blob(original, digest)
    age(blob_path(store.root, digest), 2 * DAY)
    assert collect(store) == Collected(blobs=(digest,))
    assert original.read_bytes() == content
