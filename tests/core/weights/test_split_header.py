"""Headers of weights that are split into several files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from corral_core.base.errors import GGUFError, SourceError
from corral_core.weights.gguf_details import read_verbose_metadata
from corral_core.weights.gguf_metadata import read_metadata, read_metadata_from
from corral_core.weights.split_header import OpenPart, read_weights_header
from tests.support.gguf_files import LLAMA, FakeTensor, gguf_bytes
from tests.support.gguf_split import split_gguf

TENSORS = [FakeTensor(f"blk.{number}.weight", (32, number + 1), 8) for number in range(7)]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.gguf"
    path.write_bytes(gguf_bytes(LLAMA, TENSORS))
    return path


@pytest.fixture
def parts(whole: Path, tmp_path: Path) -> list[Path]:
    return split_gguf(whole, tmp_path, parts=3)


def test_metadata_counts_all_parts(whole: Path, parts: list[Path]) -> None:
    one, split = read_metadata(whole), read_metadata(parts[0])
    assert split.size == sum(part.stat().st_size for part in parts)
    assert (split.parameter_count, split.dimensions) == (one.parameter_count, one.dimensions)
    assert (split.family, split.template) == (one.family, one.template)


def test_verbose_metadata_has_the_tensors_of_all_parts(whole: Path, parts: list[Path]) -> None:
    one, split = read_verbose_metadata(whole), read_verbose_metadata(parts[0])
    assert split.tensors_json() == one.tensors_json()
    assert split.arrays == one.arrays


def test_metadata_of_open_files_equals_that_of_paths(parts: list[Path]) -> None:
    opened = [OpenPart(part.name, io.BytesIO(part.read_bytes()), part.stat().st_size) for part in parts]
    assert read_metadata_from(opened) == read_metadata(parts[0])


def test_missing_part_is_an_error(parts: list[Path]) -> None:
    parts[2].unlink()
    with pytest.raises(SourceError, match=r"model-00003-of-00003\.gguf"):
        read_metadata(parts[0])


def test_truncated_part_is_an_error(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[1].read_bytes()[:-40])
    with pytest.raises(GGUFError, match=r"model-00002-of-00003\.gguf is truncated"):
        read_metadata(parts[0])


def test_part_of_a_renamed_file_is_an_error(parts: list[Path], tmp_path: Path) -> None:
    renamed = parts[0].rename(tmp_path / "model.gguf")
    with pytest.raises(GGUFError, match="is part 1 of 3 of a split file; keep the names of all parts"):
        read_metadata(renamed)


def test_exchanged_parts_are_an_error(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(GGUFError, match=r"is not part 2 of 3 as its name says: its header has split\.no 2"):
        read_metadata(parts[0])


def test_part_of_another_file_is_an_error(parts: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(gguf_bytes(LLAMA, [*TENSORS[:4], *(FakeTensor(f"x{n}", (32,)) for n in range(3))]))
    (tmp_path / "other").mkdir()
    parts[2].write_bytes(split_gguf(other, tmp_path / "other", parts=3)[0].read_bytes())
    with pytest.raises(GGUFError, match="is not part 3 of 3"):
        read_weights_header(parts[0])


def test_file_with_the_name_of_a_part_that_is_not_split_is_an_error(whole: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"x-0000{number}-of-00002.gguf").write_bytes(whole.read_bytes())
    with pytest.raises(GGUFError, match=r"x-00001-of-00002\.gguf is not part 1 of 2 as its name says"):
        read_weights_header(tmp_path / "x-00001-of-00002.gguf")


def test_same_tensor_in_two_parts_is_an_error(tmp_path: Path) -> None:
    first, second = tmp_path / "1.gguf", tmp_path / "2.gguf"
    first.write_bytes(gguf_bytes(LLAMA, TENSORS[:4]))
    second.write_bytes(gguf_bytes(LLAMA, TENSORS[:4]))
    parts = []
    for number, path in enumerate((first, second)):
        (folder := tmp_path / str(number)).mkdir()
        parts.append(split_gguf(path, folder, parts=2)[number])
    second_part = parts[1].read_bytes().replace(b"blk.2.weight", b"blk.0.weight")
    (parts[0].with_name(parts[1].name)).write_bytes(second_part)
    with pytest.raises(GGUFError, match="its parts have 4 tensors instead of 4 different ones"):
        read_weights_header(parts[0])
