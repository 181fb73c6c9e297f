"""The metrics of a real gateway over a real runner: local mode's, at a port that a setting names."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from tests.local.served import model_file, serving
from tests.support.exposition import families, problems, value
from tests.support.waiting import until

pytestmark = pytest.mark.process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def test_the_access_log_is_among_the_events_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    model_file(folder, "tiny")
    with serving(tmp_path, folder, environment={"CORRAL_ACCESS_LOG": "9"}) as served:
        assert served.generate("tiny")
        lines = until(lambda: served.events("request"))
        assert [(line["model"], line["api"], line["code"]) for line in lines] == [
            ("default/tiny", "/api/generate", 200)
        ]


def test_a_request_that_loads_its_model_shows_in_the_metrics(tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "models"
    folder.mkdir()
    model_file(folder, "tiny")
    with serving(tmp_path, folder, environment={"CORRAL_METRICS_PORT": str(port)}) as served:
        assert served.generate("tiny")
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10.0, trust_env=False).text
    assert families(text)["corral_gateway_requests_total"] == "counter"
    assert problems(text) == ""
    name = "default/tiny"
    assert value(text, "corral_gateway_requests_total", model=name, api="/api/generate", code="200") == 1
    assert value(text, "corral_gateway_wake_seconds_count", model=name) == 1
    assert value(text, "corral_gateway_wake_seconds_sum", model=name) > 0.1
    assert value(text, "corral_gateway_runners", model=name) == 1
    assert 0 <= value(text, "corral_gateway_connections") < value(text, "corral_gateway_connection_limit")
    assert value(text, "process_resident_memory_bytes") > 1_000_000
