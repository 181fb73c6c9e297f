from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.pull.resolvers.file_names import gguf_name, part_names, weights_names
from corral_server.pull.resolvers.split_files import parse_split


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("llama3.2-1b", "llama3.2-1b.gguf"),
        ("Model.Q4_K_M.GGUF", "Model.Q4_K_M.gguf"),
        ("../../etc/passwd", "etc-passwd.gguf"),
        ("..", "model.gguf"),
        ("", "model.gguf"),
        (".gguf", "model.gguf"),
        ("ä b\0c", "b-c.gguf"),
        ("x" * 500, f"{'x' * 180}.gguf"),
    ],
)
def test_name(text: str, name: str) -> None:
    assert gguf_name(text) == name


@given(st.text(max_size=400), st.integers(1, 999))
def test_any_text_becomes_plain_file_names(text: str, count: int) -> None:
    names = part_names(text, count)
    assert len(set(names)) == count
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.gguf", name)
        assert len(name) < 255


def test_parts_have_names_that_llama_cpp_derives_from_the_first() -> None:
    names = part_names("m", 2)
    assert names == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    split = parse_split(names[0])
    assert split is not None
    assert split.parts() == tuple(names)


def test_weights_names_are_those_that_llama_cpp_derives_from_the_first() -> None:
    assert weights_names("My Model.Q8_0-00002-of-00003.GGUF") == [
        f"My-Model.Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    ]
    assert weights_names("My Model.gguf") == ["My-Model.gguf"]
