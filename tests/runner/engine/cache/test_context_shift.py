"""Tokens that are dropped when the context is full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.engine.cache.context_shift import compute_shift, tokens_to_keep, truncate_prompt


def test_a_truncated_prompt_keeps_its_start_and_its_newest_tokens() -> None:
    assert truncate_prompt(range(100), 4, context=24) == (0, 1, 2, 3, *range(90, 100))


def test_a_shift_drops_the_older_half_after_the_kept_tokens() -> None:
    shift = compute_shift(24, 4, context=24)
    assert (shift.start, shift.end, shift.size) == (4, 14, 10)


def test_a_negative_keep_keeps_all_tokens_but_never_the_whole_context() -> None:
    assert tokens_to_keep(-1, 10, context=100) == 10
    assert tokens_to_keep(-1, 100, context=100) == 98


@given(context=st.integers(4, 64), extra=st.integers(0, 200), keep=st.integers(-1, 300))
def test_a_truncated_prompt_leaves_room_to_generate(context: int, extra: int, keep: int) -> None:
    prompt = range(context + extra)
    truncated = truncate_prompt(prompt, keep, context=context)
    assert 1 <= len(truncated) < context
    assert truncated[-1] == prompt[-1]
    assert list(truncated) == sorted(set(truncated))


@given(context=st.integers(4, 64), keep=st.integers(-1, 300))
def test_a_shift_makes_room_and_leaves_tokens(context: int, keep: int) -> None:
    shift = compute_shift(context, keep, context=context)
    assert 0 <= shift.start < shift.end <= context
    assert shift.size < context
