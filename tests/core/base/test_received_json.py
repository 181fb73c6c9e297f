"""JSON that another process sent: whatever it is, the result is a bounded value or ValueError."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.received_json import MAX_DEPTH, parse_received, parse_received_object

LIMIT = 1 << 20


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"NaN",
        b'{"in_flight": Infinity}',
        b'{"expires_in_s": 1e999}',
        b'{"in_flight": 1' + b"0" * 5000 + b"}",
        b'{"in_flight": -9223372036854775809}',
        b'{"name": "\\ud800"}',
        b'{"\\ud800": 1}',
        nested(MAX_DEPTH + 1),
        nested(1_000),
        nested(100_000),
        b'{"a":' * 100_000,
        b" " * LIMIT + b"1",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_a_document_beyond_the_bounds_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_received(data, limit=LIMIT)


def test_the_bounds_are_inclusive() -> None:
    text = json.dumps({"low": -(2**63), "high": 2**64 - 1, "float": 1e308, "text": "é😀"}).encode()
    assert parse_received(text, limit=len(text)) == json.loads(text)
    assert parse_received(nested(MAX_DEPTH), limit=LIMIT) == json.loads(nested(MAX_DEPTH))


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b'"text"'])
def test_only_an_object_is_accepted_where_one_is_expected(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        parse_received_object(data, limit=LIMIT)


JSON_TEXT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=30,
).map(lambda value: json.dumps(value).encode())


@given(JSON_TEXT | st.binary(max_size=64))
def test_a_parsed_value_can_be_compared_encoded_and_written(data: bytes) -> None:
    try:
        value = parse_received(data, limit=LIMIT)
    except ValueError:
        return
    assert value == json.loads(data)
    assert json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert all(math.isfinite(number) for number in _numbers(value))


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []
