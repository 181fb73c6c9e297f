"""The clock for ages and deadlines."""

from __future__ import annotations

import time

import pytest

from corral_core.base.clock import steady_time


def test_it_shows_unix_seconds() -> None:
    assert steady_time() == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize("step", [-300.0, 300.0])
def test_it_is_not_set_with_the_time_of_day(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    real, before = time.time, steady_time()
    monkeypatch.setattr(time, "time", lambda: real() + step)
    assert 0 <= steady_time() - before < 60
