"""YAML documents, as strict as the API server."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.base.errors import InvalidModel
from corral_core.model.documents import load_documents, to_json_value


def _refusal(text: str) -> str:
    with pytest.raises(InvalidModel) as refusal:
        list(load_documents(text, label="file"))
    return str(refusal.value)


def test_empty_documents_are_skipped() -> None:
    assert list(load_documents("---\n# nothing\n---\na: 1\n---\n", label="file")) == [{"a": 1}]


def test_duplicate_key_is_rejected_with_its_line() -> None:
    assert "duplicate key 'a'" in _refusal("a: 1\nb: 2\na: 3\n")
    assert "line 3" in _refusal("a: 1\nb: 2\na: 3\n")


def test_anchors_and_merge_keys_are_supported() -> None:
    [document] = load_documents("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", label="file")
    assert document == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("a: 2026-01-31", "quote dates"),
        ("a: {1: b}", "a string key"),
        ("a: .nan", "number"),
        ("a: !!python/object:os.system x", "not valid YAML"),
        ("a: !!binary aGFsbG8=", "string, number"),
        ("&a {x: *a}", "at most 64 levels"),
        ("\x00", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML"),
    ],
)
def test_values_without_a_json_form_are_rejected(text: str, words: str) -> None:
    assert words in _refusal(text)


def test_alias_expansion_is_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "100000 values" in _refusal("\n".join(lines))


def test_huge_file_is_rejected_before_it_is_parsed() -> None:
    assert "characters" in _refusal("a: b\n" * 1_000_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_values_are_unchanged(value: object) -> None:
    assert to_json_value(value, label="test") == value


@given(st.text())
@settings(max_examples=300)
def test_any_text_yields_documents_or_invalid_model(text: str) -> None:
    with suppress(InvalidModel):
        list(load_documents(text, label="file"))


def test_a_long_key_above_many_values_is_copied_for_the_error_alone() -> None:
    value = {"k" * 1_000_000: {"inner": [0] * 50_000, "bad": math.nan}}
    with pytest.raises(InvalidModel) as raised:
        to_json_value(value, label="x")
    (problem,) = raised.value.problems
    assert problem.field.endswith("kk.bad")
    assert len(problem.field) < 500
