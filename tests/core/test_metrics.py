"""Metrics as text, read back by strict parsers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral_core.metrics import Histogram, counter, gauge, histogram, render
from corral_core.process_metrics import process_families
from tests.support.exposition import families, problems, value


def test_a_histogram_counts_a_bound_to_the_bucket_below_it() -> None:
    one = Histogram((0.5, 1.0))
    for observed in (0.5, 0.6, 1.0, 7.0):
        one.observe(observed)
    text = render([lambda: [histogram("wait_seconds", "Waited.", [({}, one)])]])
    assert [value(text, "wait_seconds_bucket", le=le) for le in ("0.5", "1", "+Inf")] == [1, 3, 4]
    assert value(text, "wait_seconds_sum") == 9.1
    assert value(text, "wait_seconds_count") == 4


@given(st.text(), st.floats(allow_nan=False))
def test_any_label_and_number_comes_back_as_it_was(label: str, number: float) -> None:
    label = label.encode("utf-8", "replace").decode()
    text = render([lambda: [gauge("room_bytes", "Room.", [({"model": label}, number)])]])
    assert value(text, "room_bytes", model=label) == number


def test_families_without_series_are_named_all_the_same() -> None:
    text = render([lambda: [counter("seen_total", "Seen.", [])]])
    assert families(text) == {"seen_total": "counter"}


def test_what_every_process_tells_is_clean() -> None:
    text = render([process_families])
    assert value(text, "process_cpu_seconds_total") > 0
    assert value(text, "process_resident_memory_bytes") > 1_000_000
    assert problems(text) == ""
