"""Source resolution in the status of a Model and in a termination message."""

from __future__ import annotations

import dataclasses

import pytest

from corral_core.contracts.source_resolution import ResolvedPins, SourceResolution, resolution_in_status
from corral_core.contracts.termination_message import (
    MAX_MESSAGE_BYTES,
    InspectionReport,
    decode_report,
    encode_metadata,
)
from tests.core.contracts.test_termination_message import FACTS

URI = "hf://organization/model"
RESOLUTION = SourceResolution(URI, {URI: "abc"}, 10, {URI: "0" * 32}, "model-tiny", "uid")


def test_a_resolution_round_trips_through_the_status() -> None:
    assert resolution_in_status({"source": RESOLUTION.to_json()}) == RESOLUTION
    fresh = SourceResolution(URI, {URI: "abc"})
    assert resolution_in_status({"source": fresh.to_json()}) == fresh


def test_the_pin_of_the_weights_is_shown_by_itself() -> None:
    assert RESOLUTION.to_json()["pin"] == "abc"


@pytest.mark.parametrize(
    "source",
    [
        None,
        {},
        {"uri": URI},
        {"uri": URI, "pins": [1]},
        {"uri": URI, "pins": {URI: 1}},
        {"uri": URI, "pins": {URI: "a" * 2000}},
        {"uri": URI, "pins": {f"{number}": "a" for number in range(18)}},
        {"uri": URI, "pins": {}, "totalBytes": -1},
        {"uri": URI, "pins": {}, "snapshots": {URI: "../../etc"}},
    ],
)
def test_a_status_that_is_not_a_resolution_reads_as_none(source: object) -> None:
    assert resolution_in_status({"source": source}) is None


def test_pins_travel_with_the_metadata() -> None:
    resolved = ResolvedPins(("sha256:" + "0" * 64, "abc"), 10)
    assert decode_report(encode_metadata(FACTS, resolved)) == InspectionReport(FACTS, resolved)
    assert decode_report(encode_metadata(FACTS)) == InspectionReport(FACTS, None)


def test_the_pins_of_every_source_fit_into_a_termination_message() -> None:
    noise = ("8f3c9e1a7d" * 7)[:64]
    resolved = ResolvedPins(tuple(f"sha256:{number:02d}{noise[2:]}" for number in range(17)), 10**12)
    message = encode_metadata(dataclasses.replace(FACTS, template="x" * 100_000), resolved)
    assert len(message) <= MAX_MESSAGE_BYTES
    assert decode_report(message).resolved == resolved
