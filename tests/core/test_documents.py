"""YAML as strictly as the API server takes it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.documents import documents_of, plain_value
from corral_core.errors import InvalidModel


def _refusal(text: str) -> str:
    with pytest.raises(InvalidModel) as refusal:
        list(documents_of(text, label="file"))
    return str(refusal.value)


def test_empty_documents_are_left_out() -> None:
    assert list(documents_of("---\n# nothing\n---\na: 1\n---\n", label="file")) == [{"a": 1}]


def test_a_key_that_is_there_twice_is_refused_with_its_line() -> None:
    assert "the key 'a' is there twice" in _refusal("a: 1\nb: 2\na: 3\n")
    assert "line 3" in _refusal("a: 1\nb: 2\na: 3\n")


def test_anchors_and_merges_work() -> None:
    [document] = documents_of("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", label="file")
    assert document == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "YAML is expected"),
        ("a: 2026-01-31", "dates need quotes"),
        ("a: {1: b}", "a text as key"),
        ("a: .nan", "numbers"),
        ("a: !!python/object:os.system x", "YAML is expected"),
        ("a: !!binary aGFsbG8=", "text, numbers"),
        ("&a {x: *a}", "at most 64 levels"),
        ("\x00", "YAML is expected"),
        ("a: " + "[" * 5000, "YAML is expected"),
    ],
)
def test_what_json_lacks_is_refused(text: str, words: str) -> None:
    assert words in _refusal(text)


def test_aliases_cannot_multiply_without_end() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "100000 values" in _refusal("\n".join(lines))


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    assert "characters" in _refusal("a: b\n" * 1_000_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_values_come_through_as_they_are(value: object) -> None:
    assert plain_value(value, label="test") == value


@given(st.text())
@settings(max_examples=300)
def test_any_text_gives_documents_or_invalid_model(text: str) -> None:
    with suppress(InvalidModel):
        list(documents_of(text, label="file"))
