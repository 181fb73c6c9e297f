"""keep_alive as a value; the time is passed in."""

from __future__ import annotations

from corral_core.base.durations import FOREVER
from corral_server.runner.lifecycle.keep_alive import KeepAlive, KeepAliveBounds

LOADED = KeepAlive(300.0).model_loaded(100.0)


def test_nothing_expires_before_the_model_is_loaded() -> None:
    assert KeepAlive(300.0).expires_at is None


def test_it_counts_from_the_load_without_requests() -> None:
    assert LOADED.expires_at == 400.0


def test_it_counts_from_the_end_of_the_last_request() -> None:
    assert LOADED.request_started(None).request_ended(1000.0).expires_at == 1300.0


def test_nothing_expires_while_a_request_is_active() -> None:
    two = LOADED.request_started(None).request_started(None)
    assert two.request_ended(1000.0).expires_at is None
    assert two.request_ended(1000.0).request_ended(1001.0).expires_at == 1301.0


def test_a_request_without_keep_alive_keeps_the_last_value() -> None:
    once = LOADED.request_started(60.0).request_ended(1000.0)
    assert once.request_started(None).request_ended(2000.0).expires_at == 2060.0


def test_a_value_applies_from_the_start_of_its_request() -> None:
    assert LOADED.request_started(60.0).request_started(10.0).request_ended(1.0).seconds == 10.0


def test_requests_without_keep_alive_do_not_end_forever() -> None:
    assert (
        LOADED.request_started(FOREVER).request_ended(1.0).request_started(None).request_ended(2.0).expires_at is None
    )


def test_zero_with_a_prompt_expires_when_the_request_ends() -> None:
    assert LOADED.request_started(0.0).request_ended(1000.0).expires_at == 1000.0


def test_an_unload_request_expires_now() -> None:
    assert LOADED.request_started(None).request_ended(1000.0).unload_requested(1005.0).expires_at == 1005.0


def test_an_unload_request_waits_for_active_requests() -> None:
    busy = LOADED.request_started(None).unload_requested(1000.0)
    assert busy.expires_at is None
    assert busy.request_ended(1010.0).expires_at is not None
    assert busy.request_ended(1010.0).expires_at <= 1010.0  # type: ignore[operator]  # it was just seen not to be None


def test_a_request_without_keep_alive_keeps_an_unload_request() -> None:
    assert LOADED.unload_requested(1000.0).request_started(None).request_ended(1010.0).expires_at == 1010.0


def test_a_request_with_keep_alive_cancels_an_unload_request() -> None:
    assert LOADED.unload_requested(1000.0).request_started(60.0).request_ended(1010.0).expires_at == 1070.0


def test_bounds_clamp_the_keep_alive_of_a_request() -> None:
    bounded = KeepAlive(300.0, KeepAliveBounds(60.0, 600.0)).model_loaded(0.0)
    assert bounded.request_started(1.0).seconds == 60.0
    assert bounded.request_started(FOREVER).seconds == 600.0
    assert bounded.request_started(None).seconds == 300.0


def test_a_minimum_delays_an_unload_request() -> None:
    bounded = KeepAlive(300.0, KeepAliveBounds(60.0)).model_loaded(0.0).request_started(None).request_ended(1000.0)
    assert bounded.unload_requested(1005.0).expires_at == 1060.0
