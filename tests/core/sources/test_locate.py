"""Files that sources refer to on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.sources.locate import (
    WeightsRoots,
    locate_adapter,
    locate_projector,
    locate_weights,
    part_names,
    weight_parts,
)
from corral_core.sources.snapshot import FileRole, Snapshot, SnapshotFile, snapshot_id
from corral_core.sources.uri import parse_source


def test_file_is_located(tmp_path: Path) -> None:
    weights = tmp_path / "a b.gguf"
    weights.write_bytes(b"x")
    assert locate_weights(parse_source(f"file://{tmp_path}/a%20b.gguf")) == weights


def test_missing_file_is_named() -> None:
    with pytest.raises(SourceError, match=r"/nowhere/a\.gguf does not exist"):
        locate_weights(parse_source("file:///nowhere/a.gguf"))


def test_directory_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        locate_weights(parse_source(f"file://{tmp_path}"))


def test_too_long_path_is_a_source_error() -> None:
    with pytest.raises(SourceError):
        locate_weights(parse_source("file:///" + "a" * 5000))


def test_pvc_path_is_relative_to_the_mount(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.gguf").write_bytes(b"x")
    located = locate_weights(parse_source("pvc://weights/sub/a.gguf"), WeightsRoots(claim=tmp_path))
    assert located == tmp_path / "sub" / "a.gguf"


@pytest.mark.parametrize("linked", ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"])
def test_symbolic_link_out_of_a_claim_is_rejected(tmp_path: Path, linked: str) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    mount = tmp_path / "mount"
    mount.mkdir()
    for name in part_names("a-00001-of-00002.gguf"):
        (mount / name).write_bytes(b"x")
    (mount / linked).unlink()
    (mount / linked).symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="leaves the volume"):
        locate_weights(parse_source("pvc://weights/a-00001-of-00002.gguf"), WeightsRoots(claim=mount))


def test_weights_of_a_mounted_image_are_located_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in part_names("a-00001-of-00002.gguf"):
        (tmp_path / "models" / name).write_bytes(b"x")
    roots = WeightsRoots(claim=tmp_path, image_path="models/a-00001-of-00002.gguf")
    located = locate_weights(parse_source("oci://registry.example/team/a"), roots)
    assert (located, len(weight_parts(located))) == (tmp_path / "models" / "a-00001-of-00002.gguf", 2)


@pytest.mark.parametrize("path", ["../secret", "models/link"])
def test_path_that_leaves_a_mounted_image_is_rejected(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "image" / "models").mkdir(parents=True)
    (tmp_path / "image" / "models" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="leaves the volume"):
        locate_weights(parse_source("oci://r.example/a"), WeightsRoots(claim=tmp_path / "image", image_path=path))


def test_package_is_located_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "corral_test_weights"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "inner" / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "inner" / "a.gguf").write_bytes(b"x")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = locate_weights(parse_source("package://corral_test_weights.inner/a.gguf"))
    assert found == package / "inner" / "a.gguf"
    assert "corral_test_weights" not in sys.modules


def test_missing_package_is_named() -> None:
    with pytest.raises(SourceError, match="Python package 'corral_no_such_package' is not installed"):
        locate_weights(parse_source("package://corral_no_such_package/a.gguf"))


def test_missing_file_of_a_package_is_named() -> None:
    with pytest.raises(SourceError, match=r"has no file 'none\.gguf'"):
        locate_weights(parse_source("package://json/none.gguf"))


def test_module_that_is_not_a_package_has_no_files() -> None:
    with pytest.raises(SourceError, match="has no file"):
        locate_weights(parse_source("package://bisect/a.gguf"))


def _split(folder: Path, *, without: str = "") -> Path:
    for name in part_names("a-00001-of-00003.gguf"):
        if name != without:
            (folder / name).write_bytes(b"x")
    return folder / "a-00001-of-00003.gguf"


def test_parts_of_a_split_file_are_in_order(tmp_path: Path) -> None:
    first = _split(tmp_path)
    assert locate_weights(parse_source(f"file://{first}")) == first
    assert [part.name[2:7] for part in weight_parts(first)] == ["00001", "00002", "00003"]


def test_missing_part_is_named(tmp_path: Path) -> None:
    first = _split(tmp_path, without="a-00002-of-00003.gguf")
    with pytest.raises(SourceError, match=r"1 of the others are missing.*: a-00002-of-00003\.gguf; copy all parts"):
        locate_weights(parse_source(f"file://{first}"))


def test_another_part_than_the_first_is_refused(tmp_path: Path) -> None:
    _split(tmp_path)
    with pytest.raises(SourceError, match=r"part 2 of 3 of a split file; name the first part, a-00001-of-00003\.gguf"):
        locate_weights(parse_source(f"file://{tmp_path}/a-00002-of-00003.gguf"))


@pytest.mark.parametrize("name", ["a-00001-of-00000.gguf", "a-00003-of-00002.gguf", "a-00001-of-99999.gguf"])
def test_impossible_number_of_parts_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match="1 to 1000 parts"):
        part_names(name)


@pytest.mark.parametrize("name", ["a.gguf", "a-1-of-2.gguf", "a-00001-of-00002.bin", "a-00001-of-00002.gguf\n"])
def test_file_that_is_not_split_is_its_only_part(name: str) -> None:
    assert part_names(name) == [name]


def test_remote_source_without_a_snapshot_has_not_been_pulled_yet(tmp_path: Path) -> None:
    for roots in (WeightsRoots(), WeightsRoots(store=tmp_path), WeightsRoots(snapshots={"hf://a/b": "0" * 32})):
        with pytest.raises(SourceError, match="'hf://a/b' has not been pulled yet"):
            locate_weights(parse_source("hf://a/b"), roots)
        with pytest.raises(SourceError, match="'hf://a/b' has not been pulled yet"):
            locate_adapter(parse_source("hf://a/b"), roots)


def _stored(store: Path, uri: str, files: Mapping[str, FileRole]) -> WeightsRoots:
    id = snapshot_id(uri, "pin")
    folder = store / "snapshots" / id
    folder.mkdir(parents=True)
    listed = tuple(SnapshotFile(name, role, "0" * 64, 1) for name, role in files.items())
    (folder / "snapshot.json").write_text(json.dumps(Snapshot(id, uri, "pin", listed).to_json()))
    for name in files:
        (folder / name).write_bytes(b"x")
    return WeightsRoots(store=store, snapshots={uri: id})


def test_pulled_weights_are_located_in_the_store_by_their_first_part(tmp_path: Path) -> None:
    parts = part_names("a-00001-of-00002.gguf")
    roots = _stored(tmp_path, "hf://a/b", {"mmproj.gguf": FileRole.PROJECTOR, **dict.fromkeys(parts, FileRole.WEIGHTS)})
    located = locate_weights(parse_source("hf://a/b"), roots)
    assert (located.name, located.parent.parent) == (parts[0], tmp_path / "snapshots")
    assert len(weight_parts(located)) == 2


def test_adapter_of_a_pulled_source_is_located_before_its_weights(tmp_path: Path) -> None:
    both = {"model.gguf": FileRole.WEIGHTS, "lora.gguf": FileRole.ADAPTER}
    roots = _stored(tmp_path, "ollama://a", both)
    assert locate_weights(parse_source("ollama://a"), roots).name == "model.gguf"
    assert locate_adapter(parse_source("ollama://a"), roots).name == "lora.gguf"


def test_projector_of_a_pulled_source_is_located_before_its_weights(tmp_path: Path) -> None:
    both = {"model.gguf": FileRole.WEIGHTS, "mmproj.gguf": FileRole.PROJECTOR}
    assert locate_projector(parse_source("hf://a/b"), _stored(tmp_path, "hf://a/b", both)).name == "mmproj.gguf"


def test_file_of_a_hub_can_be_a_projector(tmp_path: Path) -> None:
    roots = _stored(tmp_path, "hf://a/b/mmproj.gguf", {"mmproj.gguf": FileRole.WEIGHTS})
    assert locate_projector(parse_source("hf://a/b/mmproj.gguf"), roots).name == "mmproj.gguf"


def test_file_of_a_hub_can_be_an_adapter(tmp_path: Path) -> None:
    roots = _stored(tmp_path, "hf://a/b/lora.gguf", {"lora.gguf": FileRole.WEIGHTS})
    assert locate_adapter(parse_source("hf://a/b/lora.gguf"), roots).name == "lora.gguf"


def test_snapshot_without_weights_is_an_error(tmp_path: Path) -> None:
    roots = _stored(tmp_path, "ollama://a", {"lora.gguf": FileRole.ADAPTER})
    with pytest.raises(SourceError, match="has no weights file"):
        locate_weights(parse_source("ollama://a"), roots)
