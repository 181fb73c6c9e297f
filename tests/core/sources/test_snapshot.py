"""Snapshots: their ids, their JSON form, and damaged or hostile ones in a store."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import SourceError
from corral_core.contracts.source_defaults import SourceDefaults, SourceMessage
from corral_core.sources.snapshot import (
    SNAPSHOT_LIMIT,
    FileRole,
    Snapshot,
    SnapshotFile,
    blob_path,
    check_file_name,
    hold_snapshot,
    read_snapshot,
    snapshot_file,
    snapshot_folder,
    snapshot_id,
)

URI = "ollama://llama3.2:1b"
ID = snapshot_id(URI, "sha256:1")
FILES = (
    SnapshotFile("model-00001-of-00002.gguf", FileRole.WEIGHTS, "a" * 64, 10),
    SnapshotFile("model-00002-of-00002.gguf", FileRole.WEIGHTS, "b" * 64, 0),
    SnapshotFile("mmproj.gguf", FileRole.PROJECTOR, "c" * 64, 2**40),
)
SNAPSHOT = Snapshot(ID, URI, "sha256:1", FILES, SourceDefaults(system="Be brief.", parameters={"stop": ["</s>"]}))


def write(store: Path, data: object, *, id: str = ID) -> Path:
    path = store / "snapshots" / id / "snapshot.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(data))
    return path


def changed(**fields: object) -> dict[str, object]:
    return SNAPSHOT.to_json() | fields


def file(**fields: object) -> list[object]:
    return [{"name": "model.gguf", "role": "weights", "sha256": "a" * 64, "size": 1} | fields]


def test_an_id_is_32_hex_digits_and_depends_on_the_uri_and_the_pin() -> None:
    ids = {snapshot_id("a", "bc"), snapshot_id("ab", "c"), snapshot_id("a", "b"), ID}
    assert len(ids) == 4
    assert all(len(id) == 32 and int(id, 16) >= 0 for id in ids)


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, SNAPSHOT.to_json())
    assert read_snapshot(tmp_path, ID) == SNAPSHOT
    assert SNAPSHOT.size == 10 + 2**40


def test_messages_and_licenses_survive(tmp_path: Path) -> None:
    defaults = SourceDefaults(messages=(SourceMessage("user", "Hi"),), licenses=("MIT",), template="{{ .Prompt }}")
    snapshot = Snapshot(ID, URI, "sha256:1", FILES, defaults)
    write(tmp_path, snapshot.to_json())
    assert read_snapshot(tmp_path, ID).defaults == defaults


def test_paths_stay_inside_the_store(tmp_path: Path) -> None:
    assert snapshot_file(tmp_path, ID, "model.gguf") == tmp_path / "snapshots" / ID / "model.gguf"
    assert blob_path(tmp_path, "a" * 64) == tmp_path / "blobs" / ("sha256-" + "a" * 64)
    for id in ("", "..", "../" + ID, ID.upper(), ID + "0", "g" * 32, ID + "\n"):
        with pytest.raises(SourceError):
            snapshot_file(tmp_path, id, "model.gguf")
        with pytest.raises(SourceError):
            read_snapshot(tmp_path, id)
    for digest in ("", "A" * 64, "a" * 63, "a" * 65, "../" + "a" * 61):
        with pytest.raises(ValueError, match="not a SHA-256"):
            blob_path(tmp_path, digest)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/a", "a\\b", "a\0b", "a\nb", ".hidden", "snapshot.json", "x" * 256, "é" * 128, "\ud800"],
)
def test_a_name_that_is_not_plain_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a plain file name"):
        check_file_name(name)
    with pytest.raises(SourceError):
        snapshot_file(tmp_path, ID, name)
    with pytest.raises(ValueError, match="invalid snapshot"):
        Snapshot.from_json(changed(files=file(name=name)))


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        "text",
        changed(id="0" * 32),
        changed(id=1),
        changed(uri="hf://another/one"),
        changed(uri="x" * 5000),
        changed(pin="x" * 2000),
        changed(files="model.gguf"),
        changed(files=file() + file()),
        changed(files=file(role="virus")),
        changed(files=file(sha256="A" * 64)),
        changed(files=file(sha256="a" * 64 + "\n")),
        changed(files=file(size=-1)),
        changed(files=file(size=2**63)),
        changed(files=file(size="1")),
        changed(files=file(size=True)),
        changed(files=file() * 1025),
        changed(defaults={"system": 1}),
        changed(defaults={"system": "x" * (256 * 1024 + 1)}),
    ],
    ids=lambda data: str(data)[:40],
)
def test_a_damaged_snapshot_is_a_source_error(tmp_path: Path, data: object) -> None:
    write(tmp_path, data)
    with pytest.raises(SourceError, match="pull the source again"):
        read_snapshot(tmp_path, ID)


def test_a_snapshot_of_another_source_is_refused(tmp_path: Path) -> None:
    other = snapshot_id(URI, "sha256:2")
    write(tmp_path, SNAPSHOT.to_json(), id=other)
    with pytest.raises(SourceError, match=f"is the snapshot {ID}"):
        read_snapshot(tmp_path, other)


def test_a_missing_snapshot_is_not_pulled_yet(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not pulled yet"):
        read_snapshot(tmp_path, ID)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b" " * (SNAPSHOT_LIMIT + 1), b"NaN"])
def test_content_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {}).write_bytes(content)
    with pytest.raises(SourceError):
        read_snapshot(tmp_path, ID)


def test_a_fifo_a_link_and_a_folder_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, SNAPSHOT.to_json())
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(SourceError):
        read_snapshot(tmp_path, ID)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SourceError, match="not a regular file"):
        read_snapshot(tmp_path, ID)
    path.unlink()
    path.mkdir()
    with pytest.raises(SourceError):
        read_snapshot(tmp_path, ID)


def test_an_invalid_snapshot_is_not_written() -> None:
    bad = SnapshotFile("../model.gguf", FileRole.WEIGHTS, "a" * 64, 1)
    with pytest.raises(ValueError, match="not a plain file name"):
        Snapshot(ID, URI, "sha256:1", (bad,)).to_json()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
FIELDS = st.sampled_from(["id", "uri", "pin", "files", "defaults"])


@given(st.dictionaries(FIELDS, JSON, min_size=1))
def test_value_error_is_the_only_error_of_from_json(fields: dict[str, object]) -> None:
    try:
        snapshot = Snapshot.from_json(changed(**fields))
    except ValueError:
        return
    assert Snapshot.from_json(snapshot.to_json()) == snapshot


def test_a_snapshot_that_goes_while_it_is_held_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = snapshot_id("hf://org/model", "1")
    folder = snapshot_folder(tmp_path, id)
    folder.mkdir(parents=True)
    (folder / "snapshot.json").write_text("{}")
    monkeypatch.setattr("fcntl.flock", lambda descriptor, operation: (folder / "snapshot.json").unlink())
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(SourceError, match="not pulled yet"):
        hold_snapshot(tmp_path, id)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
