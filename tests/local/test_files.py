from __future__ import annotations

import os
from pathlib import Path

from corral_core.sources.locate import WeightsRoots
from corral_server.local.files import ModelFiles
from tests.local.parts import document
from tests.support.gguf_files import gguf_bytes
from tests.support.gguf_split import split_gguf


def keys(files: ModelFiles) -> list[str]:
    return [listed.model.name for listed in files.read().models]


def test_files_and_the_yaml_files_of_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "one.yaml").write_text(document("one") + "---\n" + document("two"))
    (tmp_path / "folder" / "three.yml").write_text(document("three"))
    (tmp_path / "folder" / "notes.txt").write_text("not a Model")
    (tmp_path / "folder" / ".hidden.yaml").write_text(document("hidden"))
    files = ModelFiles([tmp_path / "one.yaml", tmp_path / "folder"], WeightsRoots(tmp_path))
    assert keys(files) == ["one", "two", "three"]


def test_an_invalid_file_keeps_its_last_valid_content_and_reports_the_problem(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(document("m"))
    files = ModelFiles([tmp_path], WeightsRoots(tmp_path))
    files.read()
    path.write_text(document("m", paralel=2))
    listing = files.read()
    assert [listed.model.name for listed in listing.models] == ["m"]
    assert "spec.paralel" in listing.problems[path]
    path.write_text(document("m", parallel=2))
    listing = files.read()
    assert listing.problems == {}
    assert listing.models[0].model.spec.parallel == 2


def test_an_emptied_file_keeps_its_models(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(document("m"))
    files = ModelFiles([path], WeightsRoots(tmp_path))
    files.read()
    path.write_text("")
    listing = files.read()
    assert [listed.model.name for listed in listing.models] == ["m"]
    assert listing.problems == {path: "the file has no Model"}


def test_a_removed_file_removes_its_models(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(document("m"))
    files = ModelFiles([tmp_path], WeightsRoots(tmp_path))
    files.read()
    (tmp_path / "m.yaml").unlink()
    assert keys(files) == []


def test_a_model_keeps_its_creation_time_when_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(document("a"))
    files = ModelFiles([tmp_path], WeightsRoots(tmp_path))
    first = files.read().models[0].model.created
    path.write_text(document("a", parallel=2))
    (tmp_path / "0.yaml").write_text(document("zero"))
    listing = files.read()
    assert [listed.model.name for listed in listing.models] == ["a", "zero"]
    assert listing.models[0].model.created == first


def test_a_model_in_two_files_counts_once_and_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(document("m", parallel=1))
    (tmp_path / "b.yaml").write_text(document("m", parallel=2))
    listing = ModelFiles([tmp_path], WeightsRoots(tmp_path)).read()
    assert [listed.model.spec.parallel for listed in listing.models] == [1]
    assert "default/m" in listing.problems[tmp_path / "b.yaml"]


def test_two_reads_of_unchanged_files_are_equal(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(document("m"))
    (tmp_path / "broken.yaml").write_text("{")
    files = ModelFiles([tmp_path], WeightsRoots(tmp_path))
    assert files.read() == files.read()


def test_metadata_comes_from_the_gguf_header(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(gguf_bytes())
    (tmp_path / "m.yaml").write_text(document("m", source=f"file://{tmp_path}/w.gguf"))
    weights = ModelFiles([tmp_path], WeightsRoots(tmp_path)).read().models[0].weights
    assert weights.problem is None
    assert weights.metadata is not None
    assert weights.metadata.family == "llama"


def test_metadata_is_read_again_when_any_part_of_split_weights_changed(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(gguf_bytes())
    first, second = split_gguf(tmp_path / "w.gguf", tmp_path, parts=2)
    (tmp_path / "m.yaml").write_text(document("m", source=f"file://{first}"))
    files = ModelFiles([tmp_path], WeightsRoots(tmp_path))
    metadata = files.read().models[0].weights.metadata
    assert metadata is not None
    assert metadata.size == first.stat().st_size + second.stat().st_size
    second.write_bytes(b"something else")
    assert str(second) in str(files.read().models[0].weights.problem)


def test_missing_or_invalid_weights_are_a_problem_until_fixed(tmp_path: Path) -> None:
    weights = tmp_path / "w.gguf"
    (tmp_path / "m.yaml").write_text(document("m", source=f"file://{weights}"))
    files = ModelFiles([tmp_path], WeightsRoots(tmp_path))
    assert "does not exist" in str(files.read().models[0].weights.problem)
    weights.write_bytes(b"something else entirely")
    os.utime(weights, (1, 1))
    assert str(weights) in str(files.read().models[0].weights.problem)
    weights.write_bytes(gguf_bytes())
    assert files.read().models[0].weights.problem is None
