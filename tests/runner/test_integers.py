"""Digit patterns of integer ranges, checked as regular expressions: GBNF without names reads the same."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.integers import between

LIMITS = st.one_of(st.none(), st.integers(-1500, 1500), st.integers(-(10**14), 10**14))


def matches(low: int | None, high: int | None, text: str) -> bool:
    return re.fullmatch(between(low, high).replace('"-"', "-").replace(" ", ""), text) is not None


@given(LIMITS, LIMITS, st.lists(st.integers(-2000, 2000), max_size=20))
def test_exactly_the_integers_between_the_limits_match(low: int | None, high: int | None, others: list[int]) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    edges = [edge + step for edge in (low, high) if edge is not None for step in (-1, 0, 1)]
    for number in [*others, *edges, 0]:
        inside = (low is None or number >= low) and (high is None or number <= high)
        assert matches(low, high, str(number)) == inside


def test_leading_zeros_and_minus_zero_do_not_match() -> None:
    assert not matches(None, None, "007")
    assert not matches(-5, 5, "-0")
    assert not matches(0, 999, "00")
