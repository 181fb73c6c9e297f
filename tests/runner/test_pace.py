"""How much of a prompt is read in one step."""

from __future__ import annotations

from corral_server.runner.pace import ALONE, FIRST, LONGEST, PAUSE, SMALLEST, Pace


def paced(rate: float, capacity: int = 512) -> Pace:
    """A pace that has seen prompts read at ``rate`` tokens a second."""
    pace = Pace(capacity)
    pace.note(512, 512 / rate)
    return pace


def test_a_whole_batch_is_read_when_no_stream_runs() -> None:
    assert paced(800).allowance(streaming=False) == 512


def test_running_streams_pause_for_a_moment_only() -> None:
    assert paced(800).allowance(streaming=True) == int(800 * PAUSE)


def test_a_slow_machine_does_not_read_for_long_without_looking_up() -> None:
    assert paced(100).allowance(streaming=False) == int(100 * LONGEST)


def test_the_first_chunk_is_small_because_the_speed_is_not_known() -> None:
    assert Pace(512).allowance(streaming=False) == FIRST


def test_a_fast_machine_reads_whole_batches_beside_streams() -> None:
    assert paced(50_000).allowance(streaming=True) == 512


def test_however_slow_it_is_some_of_the_prompt_is_read() -> None:
    assert paced(0.1).allowance(streaming=True) == SMALLEST
    assert paced(0.1).allowance(streaming=False) == ALONE


def test_a_batch_smaller_than_a_chunk_is_the_limit() -> None:
    assert Pace(16).allowance(streaming=True) == 16


def test_steps_without_prompts_do_not_count() -> None:
    pace = paced(1000)
    before = pace.allowance(streaming=True)
    pace.note(4, 1.0)
    pace.note(512, 0.0)
    assert pace.allowance(streaming=True) == before


def test_a_machine_that_became_busy_is_noticed() -> None:
    pace = paced(1000)
    for _ in range(20):
        pace.note(250, 1.0)
    assert int(250 * PAUSE) <= pace.allowance(streaming=True) < 260 * PAUSE
