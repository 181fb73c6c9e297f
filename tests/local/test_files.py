from __future__ import annotations

import os
from pathlib import Path

from corral_server.local.files import ModelFiles
from tests.local.parts import document
from tests.support.gguf_files import gguf_bytes


def keys(files: ModelFiles) -> list[str]:
    return [listed.model.name for listed in files.read().models]


def test_files_and_the_yaml_files_of_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "one.yaml").write_text(document("one") + "---\n" + document("two"))
    (tmp_path / "folder" / "three.yml").write_text(document("three"))
    (tmp_path / "folder" / "notes.txt").write_text("not a Model")
    (tmp_path / "folder" / ".hidden.yaml").write_text(document("hidden"))
    assert keys(ModelFiles([tmp_path / "one.yaml", tmp_path / "folder"], tmp_path)) == ["one", "two", "three"]


def test_a_broken_file_keeps_its_last_good_content_and_the_problem_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(document("m"))
    files = ModelFiles([tmp_path], tmp_path)
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
    files = ModelFiles([path], tmp_path)
    files.read()
    path.write_text("")
    listing = files.read()
    assert [listed.model.name for listed in listing.models] == ["m"]
    assert listing.problems == {path: "there is no Model in it"}


def test_a_file_that_is_gone_takes_its_models_with_it(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(document("m"))
    files = ModelFiles([tmp_path], tmp_path)
    files.read()
    (tmp_path / "m.yaml").unlink()
    assert keys(files) == []


def test_a_model_keeps_its_age_when_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(document("a"))
    files = ModelFiles([tmp_path], tmp_path)
    first = files.read().models[0].model.created
    path.write_text(document("a", parallel=2))
    (tmp_path / "0.yaml").write_text(document("zero"))
    listing = files.read()
    assert [listed.model.name for listed in listing.models] == ["a", "zero"]
    assert listing.models[0].model.created == first


def test_the_same_model_in_two_files_counts_once_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(document("m", parallel=1))
    (tmp_path / "b.yaml").write_text(document("m", parallel=2))
    listing = ModelFiles([tmp_path], tmp_path).read()
    assert [listed.model.spec.parallel for listed in listing.models] == [1]
    assert "default/m" in listing.problems[tmp_path / "b.yaml"]


def test_two_readings_of_unchanged_files_are_equal(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(document("m"))
    (tmp_path / "broken.yaml").write_text("{")
    files = ModelFiles([tmp_path], tmp_path)
    assert files.read() == files.read()


def test_the_facts_come_from_the_header_of_the_weights(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(gguf_bytes())
    (tmp_path / "m.yaml").write_text(document("m", source=f"file://{tmp_path}/w.gguf"))
    weights = ModelFiles([tmp_path], tmp_path).read().models[0].weights
    assert weights.problem is None
    assert weights.facts is not None
    assert weights.facts.family == "llama"


def test_weights_that_are_missing_or_no_model_are_a_problem_until_they_are_mended(tmp_path: Path) -> None:
    weights = tmp_path / "w.gguf"
    (tmp_path / "m.yaml").write_text(document("m", source=f"file://{weights}"))
    files = ModelFiles([tmp_path], tmp_path)
    assert "there is no file" in str(files.read().models[0].weights.problem)
    weights.write_bytes(b"something else entirely")
    os.utime(weights, (1, 1))
    assert str(weights) in str(files.read().models[0].weights.problem)
    weights.write_bytes(gguf_bytes())
    assert files.read().models[0].weights.problem is None
