"""What a runner that cannot go on leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.runner.process import fail


def test_last_words_are_one_line_in_the_termination_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail("it\n  broke", tmp_path / "log") == 1
    assert (tmp_path / "log").read_text() == "it broke\n"
    assert capsys.readouterr().err == "it broke\n"


def test_last_words_are_short(tmp_path: Path) -> None:
    fail("x" * 100_000, tmp_path / "log")
    assert (tmp_path / "log").stat().st_size < 4096


def test_a_termination_log_that_cannot_be_written_is_no_reason_to_fail_otherwise(tmp_path: Path) -> None:
    assert fail("it broke", tmp_path / "missing" / "log") == 1
