"""The bound of a body's memory beside what parsing it takes."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_server.runner.api.request_body import parse_body
from corral_server.runner.memory import json_size
from corral_server.runner.memory.json_size import parsed_size

COUNT = 10_000
BODIES = {
    "numbers": [1] * COUNT,
    "large numbers": [123456] * COUNT,
    "floats": [0.5] * COUNT,
    "strings": ["ab"] * COUNT,
    "wide strings": ["中文"] * COUNT,
    "emoji strings": ["🦙"] * COUNT,
    "empty objects": [{}] * COUNT,
    "empty arrays": [[]] * COUNT,
    "small arrays": [[1]] * COUNT,
    "objects of one field": [{f"a{number}": 1} for number in range(COUNT)],
    "objects of two fields": [{"a": 1, "b": 2}] * COUNT,
    "one large object": {f"k{number}": 1000 for number in range(COUNT)},
    "messages": [{"role": "user", "content": "hello"}] * COUNT,
    "text": "It was a bright cold day in April, {and} [the] clocks: were, striking. " * 20_000,
    "text with an emoji": "x" * 1_000_000 + "🦙",
}
BODIES_AS_TEXT = {
    **{name: json.dumps({"x": value}, ensure_ascii=False) for name, value in BODIES.items()},
    "escaped": json.dumps({"x": "中" * 100_000 + "x" * 400_000}),
    "escaped emoji": json.dumps({"x": "x" * 1_000_000 + "🦙"}),
    "nested arrays": '{"x":[' + ",".join(["[" * 100 + "]" * 100] * 100) + "]}",
    "nested objects": '{"x":[' + ",".join(['{"a":' * 100 + "1" + "}" * 100] * 100) + "]}",
    "empty keys": '{"":' * 150 + "1" + "}" * 150,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(), inner, max_size=8),
    max_leaves=200,
)


def peak_of_parsing(body: bytes) -> int:
    tracemalloc.start()
    try:
        held = bytearray(body)
        parse_body(held, "Request")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", BODIES_AS_TEXT.values(), ids=BODIES_AS_TEXT)
def test_parsing_takes_no_more_than_the_bound(text: str) -> None:
    body = text.encode()
    assert peak_of_parsing(body) <= parsed_size(body) + 4096


@given(st.dictionaries(st.text(min_size=1), JSON, max_size=8), st.booleans())
@settings(max_examples=100, deadline=None)
def test_parsing_any_body_takes_no_more_than_the_bound(value: dict[str, object], escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "replace")
    assert peak_of_parsing(body) <= parsed_size(body) + 16384


def test_a_plain_prompt_counts_three_times() -> None:
    body = json.dumps({"model": "tiny", "prompt": "Why is the sky blue, and not {green}? " * 1000}).encode()
    assert parsed_size(body) < 3.1 * len(body)


@given(st.one_of(JSON.map(json.dumps).map(str.encode), st.text('"\\u{[:,dD8é🦙').map(str.encode)), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_the_bound_does_not_depend_on_the_pieces(body: bytes, length: int) -> None:
    expected = parsed_size(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_size, "_PIECE", length)
        assert parsed_size(body) == expected


def test_what_strings_contain_is_not_counted_as_values() -> None:
    text = json.dumps({"x": 'a "quoted" {[:,]} \\ text \\\\'})
    assert parsed_size(text.encode()) == 200 + 170 + 3 * len(text)
