"""Parts of a download: what idle connections take over from slow ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.download.parts import MAX_TAKEN, SLOWER, TAKE_AFTER, Part, Parts
from corral_server.pull.download.ranges import RangeSet

SIZE = 100_000
WHOLE = DownloadOptions(first_part=SIZE, min_part=SIZE, max_part=SIZE, min_split=SIZE + 1)
"""One part, which is not split."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def parts(clock: Callable[[], float], options: DownloadOptions = WHOLE) -> Parts:
    return Parts(RangeSet(), total=SIZE, options=options, clock=clock)


def begun(parts: Parts, read: int) -> Part:
    part = parts.take(0.0)
    assert part is not None
    part.position += read
    return part


def test_a_part_of_a_far_slower_connection_is_taken_over_where_that_one_has_arrived() -> None:
    clock = Clock()
    handed = parts(clock)
    slow = begun(handed, 500)
    clock.now += TAKE_AFTER
    taken = handed.take(1e6)
    assert taken is not None
    assert (taken.position, taken.end, taken.active, slow.active) == (500, SIZE, True, False)
    handed.give_back(slow)
    assert handed.take(1e6) is None, "the part of the slow connection is not handed out twice"


def test_a_connection_has_time_to_show_its_speed() -> None:
    clock = Clock()
    handed = parts(clock)
    begun(handed, 0)
    clock.now += TAKE_AFTER - 0.1
    assert handed.take(1e6) is None


def test_a_connection_that_is_not_far_slower_keeps_its_part() -> None:
    clock = Clock()
    handed = parts(clock)
    slow = begun(handed, 50_000)
    clock.now += TAKE_AFTER
    assert handed.take(SLOWER * 50_000 / TAKE_AFTER) is None
    assert slow.active


def test_a_connection_of_unknown_speed_takes_over_what_hardly_moves() -> None:
    clock = Clock()
    handed = parts(clock)
    begun(handed, 1_000)
    clock.now += TAKE_AFTER
    assert handed.take(0.0) is not None


def test_a_part_is_taken_over_a_few_times_at_most() -> None:
    clock = Clock()
    handed = parts(clock)
    begun(handed, 0)
    taken = 0
    while True:
        clock.now += TAKE_AFTER
        if handed.take(1e6) is None:
            break
        taken += 1
    assert taken == MAX_TAKEN


def test_a_part_that_is_complete_is_not_taken_over() -> None:
    clock = Clock()
    handed = parts(clock)
    begun(handed, SIZE)
    clock.now += 60
    assert handed.take(1e9) is None


def test_a_part_whose_data_is_being_written_is_not_taken_over() -> None:
    clock = Clock()
    handed = parts(clock)
    slow = begun(handed, 0)
    clock.now += TAKE_AFTER
    with slow.lock:
        assert handed.take(1e6) is None
    assert handed.take(1e6) is not None


def test_a_large_rest_is_split_and_stays_with_both_connections() -> None:
    clock = Clock()
    handed = parts(clock, replace(WHOLE, min_split=1))
    slow = begun(handed, 0)
    clock.now += TAKE_AFTER
    taken = handed.take(1e6)
    assert taken is not None
    assert (slow.position, slow.end, taken.position, taken.end) == (0, SIZE // 2, SIZE // 2, SIZE)
    assert slow.active
