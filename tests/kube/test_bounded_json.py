"""JSON with bounded nesting: exact for shallow values, total for deep ones."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_kube.bounded_json import MAX_DEPTH, TOO_DEEP, decode, has_deep_value, is_deep, without_deep_values
from tests.kube.http_api import nested

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text('{}[]"\\:,a\n\u00e9', max_size=6)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('"{\\x'), inner))


def depth_of(value: object) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(depth_of, items), default=0)


@given(VALUES)
def test_shallow_values_are_decoded_unchanged(value: object) -> None:
    assert decode(json.dumps(value).encode()) == (value, False)


@given(VALUES, st.integers(1, 6))
def test_values_below_the_limit_are_replaced_and_no_others(value: object, limit: int) -> None:
    cut = json.loads(without_deep_values(json.dumps(value, ensure_ascii=False).encode(), limit))
    assert depth_of(cut) <= limit
    assert is_deep(value, limit) == (depth_of(value) > limit) == (cut != value)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1_100, 200_000])
def test_a_deep_value_leaves_its_siblings(depth: int) -> None:
    value, deep = decode(f'{{"before":"}}]","deep":{nested(depth)},"after":[1,{{"b":2}}]}}'.encode())
    assert deep
    assert isinstance(value, dict)
    assert (value["before"], value["after"]) == ("}]", [1, {"b": 2}])
    assert has_deep_value(value["deep"])
    assert TOO_DEEP in json.dumps(value["deep"])
    assert depth_of(value) == MAX_DEPTH


@pytest.mark.parametrize("payload", [b"", b"no", b'{"a":', b'["' + b'\\"' * 500_000, b"[" * 500_000, b"[" * 99 + b"]"])
def test_damaged_json_is_an_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"line 1|incomplete"):
        decode(payload)
