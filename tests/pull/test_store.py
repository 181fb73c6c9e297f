"""Store of weights: publication of blobs and snapshots, links to other folders, room."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.contracts.source_defaults import SourceDefaults
from corral_core.sources.snapshot import FileRole, SnapshotFile, blob_path, read_snapshot, snapshot_file
from corral_server.pull.errors import PullError
from corral_server.pull.store import WeightsStore

URI = "hf://org/repo"
CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FILE = SnapshotFile("model.gguf", FileRole.WEIGHTS, DIGEST, len(CONTENT))


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    store = WeightsStore(tmp_path / "store")
    store.prepare()
    return store


def put(store: WeightsStore, content: bytes = CONTENT) -> str:
    digest = hashlib.sha256(content).hexdigest()
    path = store.partial / digest
    path.write_bytes(content)
    with path.open("rb") as file:
        store.publish_blob(path, file.fileno(), digest)
    return digest


def test_a_published_blob_is_read_only_and_no_partial_file_is_left(store: WeightsStore) -> None:
    assert store.blob(DIGEST) is None
    put(store)
    path = store.blob(DIGEST, size=len(CONTENT))
    assert path == blob_path(store.root, DIGEST)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o222 == 0
    assert list(store.partial.iterdir()) == []
    assert store.blob(DIGEST, size=1) is None


def test_a_file_system_without_modes_is_no_error(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    put(store)
    assert store.blob(DIGEST, size=len(CONTENT)) is not None


def test_a_file_that_was_replaced_during_the_download_is_not_published(store: WeightsStore) -> None:
    path = store.partial / "data"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        path.unlink()
        path.write_bytes(b"of another process, not complete")
        with pytest.raises(PullError, match="pull again"):
            store.publish_blob(path, file.fileno(), DIGEST)
    assert store.blob(DIGEST) is None


def test_a_blob_that_another_process_published_is_no_error(store: WeightsStore) -> None:
    path = store.partial / "data"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        path.rename(blob_path(store.root, DIGEST))
        store.publish_blob(path, file.fileno(), DIGEST)
    assert store.blob(DIGEST) is not None


def test_a_snapshot_has_relative_links_to_its_blobs(store: WeightsStore, tmp_path: Path) -> None:
    put(store)
    defaults = SourceDefaults(system="Be brief.")
    snapshot = store.publish(URI, "1", files=[FILE], defaults=defaults)
    assert store.find(URI, "1") == snapshot == read_snapshot(store.root, snapshot.id)
    assert snapshot.defaults == defaults
    moved = store.root.rename(tmp_path / "moved")
    assert snapshot_file(moved, snapshot.id, "model.gguf").read_bytes() == CONTENT
    assert store.find(URI, "2") is None


def test_a_snapshot_is_published_again_and_replaced_when_damaged(store: WeightsStore) -> None:
    put(store)
    snapshot = store.publish(URI, "1", files=[FILE])
    folder = store.root / "snapshots" / snapshot.id
    inode = folder.stat().st_ino
    assert store.publish(URI, "1", files=[FILE]) == snapshot
    assert folder.stat().st_ino == inode
    (folder / "snapshot.json").write_text("{")
    assert store.find(URI, "1") is None
    assert store.publish(URI, "1", files=[FILE]) == snapshot == store.find(URI, "1")
    assert [entry.name for entry in folder.parent.iterdir()] == [snapshot.id]


def test_a_snapshot_without_its_blob_does_not_count(store: WeightsStore) -> None:
    put(store)
    store.publish(URI, "1", files=[FILE])
    blob_path(store.root, DIGEST).unlink()
    assert store.find(URI, "1") is None
    with pytest.raises(PullError, match="pull again"):
        store.publish(URI, "1", files=[FILE])


def test_several_writers_publish_one_snapshot(store: WeightsStore) -> None:
    put(store)
    errors: list[BaseException] = []

    def publish() -> None:
        try:
            for _ in range(10):
                folder = store.root / "snapshots"
                for entry in folder.glob("[!.]*/snapshot.json"):
                    entry.write_text("damaged")
                store.publish(URI, "1", files=[FILE])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, FileNotFoundError) for error in errors)
    assert store.publish(URI, "1", files=[FILE]) == store.find(URI, "1")
    assert len(list((store.root / "snapshots").iterdir())) == 1


@pytest.mark.parametrize("name", ["../model.gguf", "/etc/passwd", "a/b", "snapshot.json"])
def test_a_hostile_name_is_refused_and_nothing_is_written(store: WeightsStore, name: str) -> None:
    put(store)
    with pytest.raises(SourceError, match="not a plain file name"):
        store.publish(URI, "1", files=[SnapshotFile(name, FileRole.WEIGHTS, DIGEST, len(CONTENT))])
    assert list((store.root / "snapshots").iterdir()) == []


def test_defaults_that_are_too_large_are_refused(store: WeightsStore) -> None:
    put(store)
    defaults = SourceDefaults(parameters={f"p{n}": "x" * 10**6 for n in range(17)})
    with pytest.raises(SourceError, match="more than"):
        store.publish(URI, "1", files=[FILE], defaults=defaults)


def test_blobs_of_other_folders_are_linked(tmp_path: Path) -> None:
    ollama = tmp_path / "ollama" / "blobs"
    ollama.mkdir(parents=True)
    (ollama / f"sha256-{DIGEST}").write_bytes(CONTENT)
    store = WeightsStore(tmp_path / "store", also_read=[tmp_path / "missing", ollama])
    store.prepare()
    assert list(store.foreign_blobs(DIGEST, size=1)) == []
    [path] = store.foreign_blobs(DIGEST, size=len(CONTENT))
    store.link_blob(path, DIGEST)
    assert blob_path(store.root, DIGEST).samefile(path)
    assert not blob_path(store.root, DIGEST).is_symlink()


def test_blobs_of_another_file_system_are_linked_symbolically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crosses(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    other = tmp_path / f"sha256-{DIGEST}"
    other.write_bytes(CONTENT)
    store = WeightsStore(tmp_path / "store", also_read=[tmp_path])
    store.prepare()
    monkeypatch.setattr(os, "link", crosses)
    store.link_blob(other, DIGEST)
    assert store.blob(DIGEST, size=len(CONTENT)) is not None
    other.unlink()
    assert store.blob(DIGEST) is None


def test_a_store_that_cannot_be_created_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PullError, match="Check that the folder can be written"):
        WeightsStore(tmp_path / "file" / "store").prepare()


def test_free_room_respects_the_size_limit(store: WeightsStore) -> None:
    status = os.statvfs(store.root)
    assert store.free() > 0.5 * status.f_bavail * status.f_frsize
    put(store, os.urandom(100_000))
    store.size_limit = 150_000
    assert 0 < store.free() <= 50_000
    store.size_limit = 10
    assert store.free() == 0


def test_renewing_a_linked_blob_leaves_the_original_as_it_is(tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.write_bytes(b"x")
    os.utime(original, (1, 1))
    store = WeightsStore(tmp_path / "store")
    store.prepare()
    blob = blob_path(store.root, "a" * 64)
    blob.symlink_to(original)
    os.utime(blob, (1, 1), follow_symlinks=False)
    store.keep("a" * 64)
    assert original.stat().st_mtime == 1
    assert blob.lstat().st_mtime > 1
