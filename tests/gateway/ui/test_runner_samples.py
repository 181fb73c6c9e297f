"""Speed of a runner from its counts of generated tokens."""

from __future__ import annotations

from dataclasses import replace

from corral_server.gateway.ui.runner_samples import RunnerSample
from tests.support.planning import NOW, runner_status


def sample(*counts: tuple[float, int | None], busy: bool = True) -> RunnerSample:
    """Return the sample after these statuses: seconds after the first one, and generated tokens."""
    status = runner_status(in_flight=1 if busy else 0)
    (_, first), *others = counts
    found = RunnerSample(replace(status, generated_tokens=first), NOW)
    for after, tokens in others:
        found.update(replace(status, generated_tokens=tokens), NOW + after)
    return found


def test_the_speed_is_that_of_the_last_seconds() -> None:
    assert sample((0.0, 0), (1.0, 100), (2.0, 120)).tokens_per_second == 60
    slowing = sample(*((float(second), min(second, 10) * 100) for second in range(20)))
    assert slowing.tokens_per_second == 0


def test_one_status_or_two_at_once_tell_no_speed() -> None:
    assert sample((0.0, 50)).tokens_per_second is None
    assert sample((0.0, 50), (0.05, 60)).tokens_per_second is None


def test_an_idle_runner_generates_nothing_and_its_next_request_is_measured_alone() -> None:
    found = sample((0.0, 0), (1.0, 100), busy=False)
    assert found.tokens_per_second == 0
    busy = runner_status(in_flight=1)
    found.update(replace(busy, generated_tokens=100), NOW + 60)
    found.update(replace(busy, generated_tokens=130), NOW + 61)
    assert found.tokens_per_second == 30


def test_a_model_that_is_loaded_again_counts_from_zero() -> None:
    assert sample((0.0, 1000), (1.0, 1100), (2.0, 10), (3.0, 40)).tokens_per_second == 30


def test_a_runner_that_counts_no_tokens_has_no_speed() -> None:
    assert sample((0.0, None), (1.0, None)).tokens_per_second is None
