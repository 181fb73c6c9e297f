"""Names of split GGUF files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.sources.locate import MAX_PARTS
from corral_server.pull.resolvers.split_files import SplitName, parse_split


def test_the_path_of_any_part_gives_all_parts_in_order() -> None:
    split = parse_split("Q8_0/model-Q8_0-00002-of-00003.gguf")
    assert split is not None
    assert split.index == 2
    assert split.parts() == (
        "Q8_0/model-Q8_0-00001-of-00003.gguf",
        "Q8_0/model-Q8_0-00002-of-00003.gguf",
        "Q8_0/model-Q8_0-00003-of-00003.gguf",
    )


@pytest.mark.parametrize(
    "path",
    [
        "model.gguf",
        "model-00001-of-00001.gguf",
        "model-00000-of-00002.gguf",
        "model-00003-of-00002.gguf",
        "model-1-of-2.gguf",
        "model-00001-of-00002.safetensors",
        "model-\N{ARABIC-INDIC DIGIT ONE}0001-of-00002.gguf",
        "-00001-of-00002.gguf",
        "",
    ],
)
def test_a_file_that_is_not_split(path: str) -> None:
    assert parse_split(path) is None


def test_the_number_of_parts_is_bounded() -> None:
    split = parse_split("model-00001-of-99999.gguf")
    assert split is not None
    with pytest.raises(ValueError, match=f"split into 99999 parts, and at most {MAX_PARTS} are supported"):
        split.parts()


@given(st.text(min_size=1), st.integers(2, MAX_PARTS), st.data())
def test_each_part_names_the_same_set(prefix: str, count: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(1, count))
    split = SplitName(prefix, index, count=count)
    parts = split.parts()
    assert len(set(parts)) == count
    assert parse_split(parts[index - 1]) == split
