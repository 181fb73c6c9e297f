"""Runner status: durations on the wire, and nothing but values within bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.durations import FOREVER
from corral_core.contracts.runner_status import (
    MAX_DEVICES,
    MAX_DURATION,
    MAX_GATEWAYS,
    MAX_STATUS_BYTES,
    GPUDevice,
    Offload,
    OffloadDevice,
    RunnerStatus,
    parse_runner_status,
)
from tests.support.planning import NOW, runner_status

IDLE = runner_status()
SENT = IDLE.to_json(NOW)


def received(now: float, **changed: object) -> RunnerStatus:
    return parse_runner_status(json.dumps({**SENT, **changed}).encode(), now)


@pytest.mark.parametrize("own", [NOW, NOW - 300, NOW + 300, 0.0])
def test_times_are_those_of_the_clock_of_the_process_that_holds_the_status(own: float) -> None:
    status = received(own)
    assert status.expires_at == pytest.approx(own + 300)
    assert status.last_end == pytest.approx(own - 1)
    assert replace(status, expires_at=None, last_end=None) == replace(IDLE, expires_at=None, last_end=None)


def test_keep_alive_forever_is_minus_one_on_the_wire() -> None:
    forever = replace(IDLE, keep_alive=FOREVER, expires_at=None)
    sent = forever.to_json(NOW)
    assert (sent["keep_alive_s"], sent["expires_in_s"]) == (-1, None)
    assert RunnerStatus.from_json(sent, NOW) == forever


def test_a_status_with_all_fields_at_their_longest_fits_into_a_line() -> None:
    name = "x" * 128
    devices = (GPUDevice(name, name, total=2**53, free=2**53, used=2**53),) * MAX_DEVICES
    gateways = {f"{number:0253d}": 1_000_000 for number in range(MAX_GATEWAYS)}
    parts = (OffloadDevice(name, name, bytes=2**53, predicted=2**53),) * MAX_DEVICES
    offload = Offload(layers=65_536, total_layers=65_536, devices=parts, reason="x" * 512)
    full = replace(IDLE, by_gateway=gateways, devices=devices, offload=offload)
    line = json.dumps(full.to_json(NOW)).encode()
    assert len(line) <= MAX_STATUS_BYTES
    assert parse_runner_status(line, NOW) == full


@pytest.mark.parametrize(
    "changed",
    [
        {"in_flight": -1},
        {"in_flight": True},
        {"in_flight": "1"},
        {"in_flight": 10**7},
        {"slots": 10**30},
        {"size_bytes": 2**63},
        {"vram_bytes": -1},
        {"generated_tokens": -1},
        {"generated_tokens": 2**60},
        {"context_length": 2**40},
        {"progress": 1.5},
        {"keep_alive_s": 1e300},
        {"idle_s": 1e300},
        {"expires_in_s": 1e300},
        {"expires_in_s": -1e300},
        {"expires_in_s": "soon"},
        {"expires_in_s": [[1]]},
        {"offload": {"layers": -1, "total_layers": 1}},
        {"offload": {"layers": 1, "total_layers": 10**9}},
        {"offload": {"layers": 1, "total_layers": 1, "devices": [{"name": "", "description": "", "bytes": 2**63}]}},
    ],
    ids=str,
)
def test_a_value_out_of_bounds_is_an_error(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"invalid runner status|64 bits"):
        received(NOW, **changed)


def test_counts_and_devices_are_bounded() -> None:
    status = received(
        NOW,
        by_gateway={**{f"g{number}": 1 for number in range(1000)}, "x" * 500: 1, "bad": -1, "worse": 10**12},
        devices=[{"name": "n" * 500, "uuid": 1, "total_bytes": 1, "free_bytes": 1, "used_bytes": 0}] * 80,
    )
    assert status.by_gateway is not None
    assert len(status.by_gateway) == MAX_GATEWAYS
    assert len(status.devices) == MAX_DEVICES
    assert len(status.devices[0].name) == 128


def test_the_texts_and_devices_of_the_offload_are_bounded() -> None:
    device = {"name": "n" * 500, "description": 1, "bytes": 1}
    sent = {"layers": 1, "total_layers": 2, "devices": [device] * 80, "reason": "r" * 10_000}
    offload = received(NOW, offload=sent).offload
    assert offload is not None
    assert offload.devices == (OffloadDevice("n" * 128, "", bytes=1),) * MAX_DEVICES
    assert len(offload.reason) == 512


@pytest.mark.parametrize("absent", [None, [], "all"], ids=str)
def test_an_offload_that_is_no_object_reads_as_unknown(absent: object) -> None:
    assert received(NOW, offload=absent).offload is None


def test_times_that_differ_by_latency_only_are_kept() -> None:
    first, later = received(NOW), received(NOW + 0.4)
    assert later.steadied(first) == first
    assert later.steadied(None) == later
    moved = received(NOW, expires_in_s=290.0)
    assert moved.steadied(first).expires_at == moved.expires_at
    assert replace(first, expires_at=None).steadied(first).expires_at is None


NUMBERS = st.integers() | st.floats() | st.sampled_from([1e300, -1e300, 10**30, -1, 0])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(SENT)), JSON), st.sampled_from([0.0, NOW, 2e9]))
def test_whatever_arrives_is_a_status_that_can_be_used_or_a_value_error(changed: dict[str, object], now: float) -> None:
    try:
        status = received(now, **changed)
    except ValueError:
        return
    for moment in (status.expires_at, status.last_end):
        assert moment is None or datetime.fromtimestamp(moment, UTC)
    assert 0 <= status.in_flight + status.waiting + status.slots < 2**63
    assert 1000 * (status.size_bytes + status.vram_bytes) < 2**64
    assert status.offload is None or 0 <= status.offload.layers <= 65_536
    assert abs(status.keep_alive) <= MAX_DURATION or status.keep_alive == FOREVER
    assert json.dumps(status.to_json(now), allow_nan=False)


def test_generated_tokens_are_read_and_two_statuses_that_differ_in_them_are_equal() -> None:
    status = received(NOW, generated_tokens=70)
    assert (status.generated_tokens, received(NOW).generated_tokens) == (70, None)
    assert status == IDLE, "nothing is decided because tokens were generated"
