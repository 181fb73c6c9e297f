"""Metrics exposition, checked with strict parsers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.exposition import counter, expose, gauge, histogram
from corral_core.base.metrics import Histogram
from corral_core.base.process_metrics import process_families
from tests.support.exposition import expose_text, lint_metrics, parse_metric_types, parse_openmetrics, sample_value


def test_histogram_bounds_are_inclusive() -> None:
    one = Histogram((0.5, 1.0))
    for observed in (0.5, 0.6, 1.0, 7.0):
        one.observe(observed)
    text = expose_text(lambda: [histogram("wait_seconds", "Waited.", [({}, one)])])
    assert [sample_value(text, "wait_seconds_bucket", le=le) for le in ("0.5", "1.0", "+Inf")] == [1, 3, 4]
    assert sample_value(text, "wait_seconds_sum") == 9.1
    assert sample_value(text, "wait_seconds_count") == 4


@given(st.text(), st.floats(allow_nan=False))
def test_labels_and_values_round_trip(label: str, number: float) -> None:
    label = label.encode("utf-8", "replace").decode()
    text = expose_text(lambda: [gauge("room_bytes", "Room.", [({"model": label}, number)])])
    assert sample_value(text, "room_bytes", model=label) == number


def test_families_without_series_are_exposed() -> None:
    text = expose_text(lambda: [counter("seen_total", "Seen.", [])])
    assert parse_metric_types(text) == {"seen_total": "counter"}


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain"])
def test_text_format_is_the_default(accept: str) -> None:
    body, content_type = expose([lambda: [gauge("room_bytes", "Room.", [({}, 1)])]], accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert body == b"# HELP room_bytes Room.\n# TYPE room_bytes gauge\nroom_bytes 1.0\n"


def test_openmetrics_is_negotiated() -> None:
    one = Histogram((0.5, 1.0))
    one.observe(0.7)
    sources = [
        process_families,
        lambda: [counter("seen_total", "Seen.", [({}, 2)]), histogram("wait_seconds", "Waited.", [({"a": "b"}, one)])],
    ]
    body, content_type = expose(sources, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    kinds = {family.name: family.type for family in parse_openmetrics(body.decode())}
    assert kinds["seen"] == "counter"
    assert kinds["wait_seconds"] == "histogram"


def test_process_metrics_pass_promlint() -> None:
    text = expose_text(process_families)
    assert sample_value(text, "process_cpu_seconds_total") > 0
    assert sample_value(text, "process_resident_memory_bytes") > 1_000_000
    assert lint_metrics(text) == ""
