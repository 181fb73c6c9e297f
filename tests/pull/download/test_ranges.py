"""Sets of byte ranges, compared with sets of integers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.pull.download.ranges import RangeSet

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda item: (item[0], item[0] + item[1])))


@given(RANGES, st.integers(0, 80))
def test_a_set_of_ranges_is_a_set_of_bytes(ranges: list[tuple[int, int]], total: int) -> None:
    expected = {byte for start, end in ranges for byte in range(start, end)}
    found = RangeSet(ranges)
    pairs = list(found)
    assert {byte for start, end in pairs for byte in range(start, end)} == expected
    assert all(before[1] < after[0] for before, after in itertools.pairwise(pairs))
    assert found.size == len(expected)
    assert found.end == max(expected, default=-1) + 1
    assert found.front == next(byte for byte in range(len(expected) + 1) if byte not in expected)
    gaps = found.missing(total)
    assert {byte for start, end in gaps for byte in range(start, end)} == set(range(total)) - expected
    assert RangeSet(gaps) == RangeSet(found.missing(total))


def test_a_copy_is_independent() -> None:
    original = RangeSet([(0, 2)])
    copy = original.copy()
    copy.add(4, 6)
    assert list(original) == [(0, 2)]
    assert len(copy) == 2
    assert original != copy


@pytest.mark.parametrize("pair", [(-1, 2), (3, 2)])
def test_what_is_not_a_range_is_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a range"):
        RangeSet([pair])
