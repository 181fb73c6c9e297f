"""Requests for a longer context than a slot has are counted, and logged within a bound."""

from __future__ import annotations

import pytest

from corral_server.runner.lifecycle.metrics import exposition
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import runner_state


def test_each_value_is_logged_once_and_each_request_counted(caplog: pytest.LogCaptureFixture) -> None:
    state = runner_state(FakeEngine())
    for num_ctx in (4096, 8192, 8192, *range(5000, 5100)):
        state.short_contexts.record(state.require_loaded(), num_ctx, model=state.name)
    lines = [record.message for record in caplog.records]
    assert lines[0] == "model default/tiny: num_ctx 8192 of a request exceeds the context length 4096"
    assert len(lines) == 32
    assert b'corral_runner_short_context_requests_total{model="default/tiny"} 102.0' in exposition(state)[0]
