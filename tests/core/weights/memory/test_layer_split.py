"""Distribution of layers over GPUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.weights.memory.layer_split import GpuOptions, devices_of_layers

CPU = None


def _counts(layers: int, devices: int, options: GpuOptions) -> list[int]:
    places = devices_of_layers(layers, devices, options)
    return [places.count(device) for device in (CPU, *range(devices))]


@pytest.mark.parametrize(
    ("layers", "devices", "options", "counts"),
    [
        (30, 0, GpuOptions(), [31]),
        (30, 1, GpuOptions(), [0, 31]),
        (30, 2, GpuOptions(), [0, 16, 15]),
        (31, 2, GpuOptions(), [0, 16, 16]),
        (32, 3, GpuOptions(), [0, 11, 11, 11]),
        (30, 2, GpuOptions(layers=10), [21, 5, 5]),
        (30, 2, GpuOptions(layers=0), [31, 0, 0]),
        (30, 2, GpuOptions(layers=99), [0, 16, 15]),
        (30, 2, GpuOptions(shares=(1, 3)), [0, 8, 23]),
        (30, 2, GpuOptions(shares=(0, 1)), [0, 0, 31]),
        (30, 2, GpuOptions(shares=(1, 0)), [0, 31, 0]),
    ],
)
def test_layers_are_split_by_shares(layers: int, devices: int, options: GpuOptions, counts: list[int]) -> None:
    assert _counts(layers, devices, options) == counts


def test_the_last_layers_and_the_output_are_on_gpus() -> None:
    assert devices_of_layers(4, 2, GpuOptions(layers=3)) == [CPU, CPU, 0, 0, 1]


@given(st.integers(0, 200), st.integers(1, 16), st.integers(0, 300))
def test_every_layer_has_a_place_in_order(layers: int, devices: int, offloaded: int) -> None:
    places = devices_of_layers(layers, devices, GpuOptions(offloaded))
    found = [place for place in places if place is not None]
    assert len(places) == layers + 1
    assert found == sorted(found)
    assert places[len(places) - len(found) :] == found
    assert len(found) == min(offloaded, layers + 1)
