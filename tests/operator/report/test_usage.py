"""Usage of a loaded Model by the statuses of its runners."""

from __future__ import annotations

from dataclasses import replace

from corral_core.base.durations import FOREVER
from corral_operator.report.usage import UNKNOWN_USAGE, Usage, usage
from tests.operator.samples import NOW, runner_status

RESTING = replace(runner_status(expires_at=NOW + 200), last_end=NOW - 100)
BUSY = runner_status(in_flight=1)


def test_an_idle_runner_is_idle_since_its_last_request() -> None:
    assert usage([RESTING], NOW) == Usage(NOW + 200, NOW - 100, 300.0)


def test_a_runner_without_requests_is_idle_since_its_load() -> None:
    assert usage([runner_status(expires_at=NOW + 200)], NOW).idle_since == NOW - 100


def test_a_busy_runner_is_not_idle_and_expires_after_its_keep_alive() -> None:
    assert usage([BUSY], NOW) == Usage(NOW + 300, None, 300.0)


def test_a_model_is_idle_since_the_last_request_of_all_its_runners() -> None:
    later = replace(RESTING, last_end=NOW - 5, expires_at=NOW + 295)
    assert usage([RESTING, later], NOW) == Usage(NOW + 295, NOW - 5, 300.0)
    assert usage([RESTING, BUSY], NOW).idle_since is None


def test_a_model_that_is_never_unloaded_has_no_expiry() -> None:
    forever = replace(RESTING, keep_alive=FOREVER, expires_at=None)
    assert usage([forever], NOW) == Usage(None, NOW - 100, FOREVER)
    assert usage([replace(BUSY, keep_alive=FOREVER)], NOW).expires_at is None


def test_the_usage_is_unknown_while_that_of_a_runner_is() -> None:
    assert usage([RESTING, None], NOW) == usage([], NOW) == UNKNOWN_USAGE
    assert usage([runner_status(loaded=False)], NOW) == UNKNOWN_USAGE
