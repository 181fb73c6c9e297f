"""Model names in Ollama's grammar."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import InvalidName
from corral_core.base.names import NAME_PATTERN, canonical_name, full_name, parse_name


@pytest.mark.parametrize(
    ("written", "looked_up"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("llama3.2:latest", "llama3.2:latest"),
        ("Llama3.2:1B", "llama3.2:1b"),
        ("library/llama3.2", "llama3.2:latest"),
        ("registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"),
        ("Registry.Ollama.AI/Library/llama3.2:1b", "llama3.2:1b"),
        ("org/llama", "org/llama:latest"),
        ("registry.ollama.ai/org/llama", "org/llama:latest"),
        ("example.com/library/llama", "example.com/library/llama:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("_x", "_x:latest"),
        ("llama3.2:local", "llama3.2:latest"),
        ("llama3.2:1b:local", "llama3.2:1b"),
        ("llama3.2:LOCAL", "llama3.2:latest"),
        ("llama3.2-cloud", "llama3.2-cloud:latest"),
    ],
)
def test_canonical_name(written: str, looked_up: str) -> None:
    assert canonical_name(written) == looked_up


@pytest.mark.parametrize(
    "written",
    [
        "",
        ":",
        ":tag",
        "a:",
        "/a",
        "a/",
        "a//b",
        "h/a.b/c",
        "a b",
        "-a",
        ".a",
        "a/b/c/d",
        "a:b:c",
        "a:b/c",
        "x" * 81,
        "a:" + "x" * 81,
        "é",
        "a\n",
        "a\x00",
        ":local",
    ],
)
def test_invalid_name(written: str) -> None:
    with pytest.raises(InvalidName, match="invalid model name"):
        canonical_name(written)


def test_maximum_length_of_parts_matches_ollama() -> None:
    host, part = "h" * 350, "p" * 80
    assert canonical_name(f"{host}/{part}/{part}:{part}") == f"{host}/{part}/{part}:{part}"
    with pytest.raises(InvalidName):
        canonical_name(f"{host}h/{part}/{part}")


def test_full_name_has_host_and_namespace() -> None:
    assert full_name("X") == "registry.ollama.ai/library/x:latest"
    assert full_name("localhost:5000/a/b:C") == "localhost:5000/a/b:c"


def test_parsed_name_keeps_letter_case() -> None:
    assert parse_name("Org/Llama:1B").short == "Org/Llama:1B"


@given(st.from_regex(NAME_PATTERN, fullmatch=True))
def test_canonical_name_is_idempotent(name: str) -> None:
    name = name.removesuffix("\n")
    form = canonical_name(name)
    if not form.endswith(":local"):
        assert canonical_name(form) == form
    assert canonical_name(name.upper()) == form


@given(st.text(alphabet="aA0_-.:/ é\n", max_size=12))
def test_pattern_of_the_crd_is_equivalent(text: str) -> None:
    try:
        parse_name(text)
        valid = True
    except InvalidName:
        valid = False
    assert valid == (re.fullmatch(NAME_PATTERN.removesuffix("$"), text) is not None)
