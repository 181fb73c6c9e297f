"""Metrics of local mode with a real gateway and a real runner, at the port of the setting."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.local.served import model_file, serving
from tests.support.exposition import lint_metrics, parse_metric_types, sample_value
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.process


def test_the_access_log_is_part_of_the_events_when_enabled(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    model_file(folder, "tiny")
    with serving(tmp_path, folder, environment={"CORRAL_ACCESS_LOG": "9"}) as served:
        assert served.generate("tiny")
        lines = until(lambda: served.events("request"))
        assert [(line["model"], line["api"], line["code"]) for line in lines] == [
            ("default/tiny", "/api/generate", 200)
        ]


def test_a_cold_request_shows_in_the_metrics(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "models"
    folder.mkdir()
    model_file(folder, "tiny")
    with serving(tmp_path, folder, environment={"CORRAL_METRICS_PORT": str(port)}) as served:
        assert served.generate("tiny")
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10.0, trust_env=False).text
    assert parse_metric_types(text)["corral_gateway_requests_total"] == "counter"
    assert lint_metrics(text) == ""
    name = "default/tiny"
    assert sample_value(text, "corral_gateway_requests_total", model=name, api="/api/generate", code="200") == 1
    assert sample_value(text, "corral_gateway_wake_seconds_count", model=name) == 1
    assert sample_value(text, "corral_gateway_wake_seconds_sum", model=name) > 0.1
    assert sample_value(text, "corral_gateway_ready_runners", model=name) == 1
    assert 0 <= sample_value(text, "corral_gateway_connections") < sample_value(text, "corral_gateway_connection_limit")
    assert sample_value(text, "process_resident_memory_bytes") > 1_000_000
