"""How much of a prompt is read in one step."""

from __future__ import annotations

from corral_server.runner.pace import PAUSE, SMALLEST, Pace


def test_a_whole_batch_is_read_when_no_stream_runs() -> None:
    assert Pace(512).allowance(streaming=False) == 512


def test_running_streams_pause_for_a_moment_only() -> None:
    pace = Pace(512)
    pace.note(512, 512 / 800)
    assert pace.allowance(streaming=True) == int(800 * PAUSE)


def test_a_fast_machine_reads_whole_batches_beside_streams() -> None:
    pace = Pace(512)
    pace.note(512, 0.01)
    assert pace.allowance(streaming=True) == 512


def test_however_slow_it_is_some_of_the_prompt_is_read() -> None:
    pace = Pace(512)
    assert pace.allowance(streaming=True) == SMALLEST
    pace.note(512, 3600.0)
    assert pace.allowance(streaming=True) == SMALLEST


def test_a_batch_smaller_than_a_chunk_is_the_limit() -> None:
    assert Pace(16).allowance(streaming=True) == 16


def test_steps_without_prompts_do_not_count() -> None:
    pace = Pace(512)
    pace.note(512, 0.5)
    before = pace.allowance(streaming=True)
    pace.note(4, 1.0)
    assert pace.allowance(streaming=True) == before
