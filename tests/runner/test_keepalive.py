"""keep_alive as a value, with every moment given."""

from __future__ import annotations

from corral_core.activity import FOREVER
from corral_server.runner.keepalive import Bounds, KeepAlive

LOADED = KeepAlive(300.0).loaded(100.0)


def test_nothing_expires_before_the_model_is_loaded() -> None:
    assert KeepAlive(300.0).expires_at is None


def test_it_counts_from_the_loading_when_nobody_came() -> None:
    assert LOADED.expires_at == 400.0


def test_it_counts_from_the_end_of_the_last_request() -> None:
    assert LOADED.begun(None).ended(1000.0).expires_at == 1300.0


def test_nothing_expires_while_a_request_is_active() -> None:
    two = LOADED.begun(None).begun(None)
    assert two.ended(1000.0).expires_at is None
    assert two.ended(1000.0).ended(1001.0).expires_at == 1301.0


def test_a_request_without_a_value_keeps_the_last_one() -> None:
    once = LOADED.begun(60.0).ended(1000.0)
    assert once.begun(None).ended(2000.0).expires_at == 2060.0


def test_the_value_holds_from_the_start_of_its_request() -> None:
    assert LOADED.begun(60.0).begun(10.0).ended(1.0).seconds == 10.0


def test_forever_never_expires_through_later_plain_requests() -> None:
    assert LOADED.begun(FOREVER).ended(1.0).begun(None).ended(2.0).expires_at is None


def test_zero_with_a_prompt_expires_when_the_request_ends() -> None:
    assert LOADED.begun(0.0).ended(1000.0).expires_at == 1000.0


def test_unloading_is_due_now() -> None:
    assert LOADED.begun(None).ended(1000.0).unloading(1005.0).expires_at == 1005.0


def test_unloading_while_busy_waits_for_the_end() -> None:
    busy = LOADED.begun(None).unloading(1000.0)
    assert busy.expires_at is None
    assert busy.ended(1010.0).expires_at is not None
    assert busy.ended(1010.0).expires_at <= 1010.0  # type: ignore[operator]  # it was just seen not to be None


def test_a_request_without_a_value_keeps_the_unloading() -> None:
    assert LOADED.unloading(1000.0).begun(None).ended(1010.0).expires_at == 1010.0


def test_a_request_with_a_value_revives() -> None:
    assert LOADED.unloading(1000.0).begun(60.0).ended(1010.0).expires_at == 1070.0


def test_bounds_clamp_what_a_request_brings() -> None:
    bounded = KeepAlive(300.0, Bounds(60.0, 600.0)).loaded(0.0)
    assert bounded.begun(1.0).seconds == 60.0
    assert bounded.begun(FOREVER).seconds == 600.0
    assert bounded.begun(None).seconds == 300.0


def test_a_minimum_holds_an_unloading_back() -> None:
    bounded = KeepAlive(300.0, Bounds(60.0)).loaded(0.0).begun(None).ended(1000.0)
    assert bounded.unloading(1005.0).expires_at == 1060.0
