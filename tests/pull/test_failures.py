"""Failed downloads: wrong content is not downloaded again soon, and then with growing delays."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.pull.errors import ContentError
from corral_server.pull.failures import FAILURE_AGE, FIRST_DELAY, LONGEST_DELAY, FailedDownloads

URI, PIN = "hf://org/model", "1"
NOW = 1_700_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failures(tmp_path: Path, clock: Clock) -> FailedDownloads:
    return FailedDownloads(tmp_path, clock=clock)


def record(failures: FailedDownloads, text: str = "wrong digest") -> ContentError:
    return failures.record(URI, PIN, error=ContentError(text))


def test_a_failure_is_repeated_until_its_delay_has_passed(failures: FailedDownloads, clock: Clock) -> None:
    failures.check(URI, PIN)
    error = record(failures)
    assert str(error) == "wrong digest. It is downloaded again after 2023-11-14T22:23:20Z"
    assert error.retry_after == FIRST_DELAY
    clock.now += FIRST_DELAY - 1
    with pytest.raises(ContentError) as repeated:
        failures.check(URI, PIN)
    assert str(repeated.value) == str(error)
    assert repeated.value.retry_after == pytest.approx(1)
    clock.now += 1
    failures.check(URI, PIN)


def test_the_delay_doubles_up_to_a_day(failures: FailedDownloads) -> None:
    delays = [record(failures).retry_after for _ in range(10)]
    assert delays[:4] == [600, 1200, 2400, 4800]
    assert delays[-1] == LONGEST_DELAY
    assert "Failure 11 in a row." in str(record(failures))


def test_another_pin_and_another_source_are_not_held_up(failures: FailedDownloads) -> None:
    record(failures)
    failures.check(URI, "2")
    failures.check("hf://org/other", PIN)


def test_what_is_forgotten_counts_from_the_first_failure_again(failures: FailedDownloads) -> None:
    record(failures)
    failures.forget(URI, PIN)
    failures.check(URI, PIN)
    assert record(failures).retry_after == FIRST_DELAY


def test_a_source_is_forgotten_at_every_pin(failures: FailedDownloads) -> None:
    record(failures)
    failures.record(URI, "2", error=ContentError("wrong digest"))
    failures.record("hf://org/other", PIN, error=ContentError("wrong digest"))
    assert failures.forget_source(URI)
    assert not failures.forget_source(URI)
    failures.check(URI, PIN)
    with pytest.raises(ContentError):
        failures.check("hf://org/other", PIN)


def test_a_clock_that_is_set_back_holds_up_nothing(failures: FailedDownloads, clock: Clock) -> None:
    record(failures)
    clock.now -= 30 * 24 * 3600
    failures.check(URI, PIN)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"x" * 100_000, b'{"uri": 1}', b'{"retry_at": 1e300}'])
def test_a_damaged_record_holds_up_nothing(failures: FailedDownloads, tmp_path: Path, content: bytes) -> None:
    record(failures)
    (path,) = (tmp_path / "failures").iterdir()
    path.write_bytes(content)
    failures.check(URI, PIN)
    assert not failures.forget_source(URI)
    assert record(failures).retry_after == FIRST_DELAY


def test_a_store_that_cannot_be_written_still_reports_the_error(failures: FailedDownloads, tmp_path: Path) -> None:
    (tmp_path / "failures").write_text("a file")
    assert "wrong digest" in str(record(failures))
    failures.check(URI, PIN)


def test_a_long_error_is_cut(failures: FailedDownloads) -> None:
    assert len(str(record(failures, "x" * 10_000))) < 2000
    with pytest.raises(ContentError):
        failures.check(URI, PIN)


def test_old_records_are_collected(failures: FailedDownloads, tmp_path: Path) -> None:
    record(failures)
    (path,) = (tmp_path / "failures").iterdir()
    changed = path.stat().st_mtime
    failures.collect(changed - 1)
    assert path.exists()
    failures.collect(changed)
    assert not path.exists()
    assert FAILURE_AGE > LONGEST_DELAY, "the count lasts from one attempt to the next"
    path.parent.rmdir()
    failures.collect(changed)
