"""Which tokens go when the context is full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.window import cut_prompt, kept, shift_of


def test_a_cut_prompt_keeps_its_start_and_the_newest_half() -> None:
    assert cut_prompt(range(100), 4, context=24) == (0, 1, 2, 3, *range(90, 100))


def test_a_shift_forgets_the_older_half_after_the_kept_tokens() -> None:
    shift = shift_of(24, 4, context=24)
    assert (shift.start, shift.end, shift.size) == (4, 14, 10)


def test_a_negative_keep_keeps_what_there_is_but_not_the_whole_window() -> None:
    assert kept(-1, 10, context=100) == 10
    assert kept(-1, 100, context=100) == 98


@given(context=st.integers(4, 64), extra=st.integers(0, 200), keep=st.integers(-1, 300))
def test_a_cut_prompt_leaves_room_to_generate(context: int, extra: int, keep: int) -> None:
    prompt = range(context + extra)
    cut = cut_prompt(prompt, keep, context=context)
    assert 1 <= len(cut) < context
    assert cut[-1] == prompt[-1]
    assert list(cut) == sorted(set(cut))


@given(context=st.integers(4, 64), keep=st.integers(-1, 300))
def test_a_shift_always_makes_room_and_leaves_something(context: int, keep: int) -> None:
    shift = shift_of(context, keep, context=context)
    assert 0 <= shift.start < shift.end <= context
    assert shift.size < context
