"""Limits of a request on their way from the gateway to the runner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.wire.request_limits import NO_REQUEST_LIMITS, RequestLimits, parse_request_limits

LIMITS = st.builds(RequestLimits, st.integers(0, 2**31), st.integers(0, 10**10).map(lambda value: value / 1000))


@given(LIMITS)
def test_headers_carry_the_limits(limits: RequestLimits) -> None:
    assert parse_request_limits(limits.headers()) == limits


@given(LIMITS, LIMITS)
def test_the_lower_limit_counts_and_zero_is_none(one: RequestLimits, other: RequestLimits) -> None:
    lower = one.within(other)
    assert lower == other.within(one)
    assert lower.max_output_tokens == min(filter(None, (one.max_output_tokens, other.max_output_tokens)), default=0)
    assert lower.max_duration == min(filter(None, (one.max_duration, other.max_duration)), default=0)


def test_a_duration_below_a_millisecond_is_a_limit() -> None:
    assert parse_request_limits(RequestLimits(max_duration=1e-7).headers()).max_duration == 0.001


@pytest.mark.parametrize("value", [b"", b"-1", b"many", b"1.5", b"\xb2", b"1" * 400])
def test_a_value_that_is_no_number_is_no_limit(value: bytes) -> None:
    headers = [(b"corral-max-output-tokens", value), (b"corral-max-duration-ms", value)]
    assert parse_request_limits(headers) == NO_REQUEST_LIMITS
