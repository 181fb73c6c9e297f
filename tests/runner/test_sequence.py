"""Which slot a prompt goes to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.sequence import Slot, choose_slot, common_prefix


def test_the_slot_that_holds_most_of_the_prompt_is_chosen() -> None:
    slots = [Slot(0, [1, 2, 9, 9]), Slot(1, [1, 2, 3, 4, 5]), Slot(2)]
    chosen, shared = choose_slot(slots, (1, 2, 3, 4, 6, 7))
    assert (chosen.sequence, shared) == (1, 4)


def test_a_conversation_keeps_its_slot() -> None:
    slots = [Slot(0), Slot(1, list(range(50)), used=9)]
    assert choose_slot(slots, tuple(range(80)))[0].sequence == 1


def test_without_a_match_an_empty_slot_is_chosen() -> None:
    slots = [Slot(0, [5, 6, 7], used=1), Slot(1)]
    assert choose_slot(slots, (1, 2, 3))[0].sequence == 1


def test_without_a_match_and_without_an_empty_slot_the_longest_unused_one_is_chosen() -> None:
    slots = [Slot(0, [5, 6], used=3), Slot(1, [7, 8], used=1), Slot(2, [9], used=2)]
    assert choose_slot(slots, (1, 2))[0].sequence == 1


def test_a_short_common_beginning_does_not_cost_another_conversation_its_cache() -> None:
    slots = [Slot(0, [1, 2, *range(100, 200)], used=5), Slot(1)]
    assert choose_slot(slots, (1, 2, *range(300, 400)))[0].sequence == 1


def test_without_a_match_a_slot_beside_the_running_ones_comes_before_one_that_is_longer_unused() -> None:
    slots = [Slot(0, [5], used=1), Slot(3, [6], used=2), Slot(5, [7], used=3)]
    assert choose_slot(slots, (1, 2), running={4})[0].sequence == 3, "5 is as near, and used later"
    assert choose_slot(slots[:2], (1, 2), running={2, 4})[0].sequence == 3, "it closes the gap"


def test_slots_that_are_taken_one_after_the_other_leave_no_gap() -> None:
    slots = [Slot(number, [90 + number], used=use) for number, use in enumerate((5, 1, 7, 3, 8, 2, 6, 4))]
    running: set[int] = set()
    for number in range(4):
        idle = [slot for slot in slots if slot.sequence not in running]
        running.add(choose_slot(idle, (1, number), running=running)[0].sequence)
    assert max(running) - min(running) == 3


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_the_common_prefix_is_as_long_as_it_gets(left: list[int], right: list[int]) -> None:
    length = common_prefix(left, tuple(right))
    assert left[:length] == right[:length]
    assert length in (len(left), len(right)) or left[length] != right[length]
