from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import InvalidQuantity
from corral_core.base.quantities import (
    format_amount,
    format_size,
    max_amounts,
    parse_quantity,
    resource_amount,
    resource_amounts,
    sum_amounts,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", 2),
        (2, 2),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("+1", 1),
        ("-3", -3),
        ("500m", Fraction(1, 2)),
        ("7u", Fraction(7, 10**6)),
        ("7n", Fraction(7, 10**9)),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        ("1Ei", 2**60),
        ("2E", 2 * 10**18),
        ("2e3", 2000),
        ("2E3", 2000),
        ("5e-1", Fraction(1, 2)),
    ],
)
def test_quantity_is_parsed_exactly(text: object, number: Fraction) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "Gi", "1 Gi", "1GB", "1.2.3", "0x10", "1e", "1e9999", "one", None, True, 1.5, ["1"]]
)
def test_invalid_quantity(text: object) -> None:
    with pytest.raises(InvalidQuantity):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("resource", "text", "number"),
    [
        ("cpu", "1", 1000),
        ("cpu", "100m", 100),
        ("cpu", "1u", 1),
        ("memory", "1Gi", 2**30),
        ("memory", "1500m", 2),
        ("nvidia.com/gpu", 2, 2),
        ("memory", "9E", 9 * 10**18),
        ("memory", "900E", 2**63 - 1),
    ],
)
def test_amount_has_the_unit_of_the_resource_and_is_rounded_up(resource: str, text: object, number: int) -> None:
    assert resource_amount(resource, text) == number


def test_negative_amount_is_rejected() -> None:
    with pytest.raises(InvalidQuantity, match="is negative"):
        resource_amount("memory", "-1Gi")


def test_zeros_and_invalid_quantities_are_left_out() -> None:
    assert resource_amounts({"cpu": "0", "memory": "1Ki", "strange": "a lot", "pods": 0}) == {"memory": 1024}


def test_amounts_are_summed_and_compared_by_resource() -> None:
    assert sum_amounts(({"cpu": 1, "memory": 2}, {"cpu": 3})) == {"cpu": 4, "memory": 2}
    assert max_amounts({"cpu": 1, "memory": 2}, {"cpu": 3}) == {"cpu": 3, "memory": 2}


@pytest.mark.parametrize(
    ("resource", "number", "text"),
    [
        ("cpu", 1500, "1.5 CPU"),
        ("cpu", 2000, "2 CPU"),
        ("cpu", 50, "0.05 CPU"),
        ("memory", 3 * 2**30 + 2**28, "3.25 GiB memory"),
        ("memory", 100 * 2**20, "100 MiB memory"),
        ("memory", 12, "12 B memory"),
        ("ephemeral-storage", 2**41, "2 TiB ephemeral-storage"),
        ("hugepages-2Mi", 2**21, "2 MiB hugepages-2Mi"),
        ("nvidia.com/gpu", 2, "2 nvidia.com/gpu"),
    ],
)
def test_format_amount(resource: str, number: int, text: str) -> None:
    assert format_amount(resource, number) == text


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "Ki", "M", "Mi", "G", "Gi"]))
def test_amount_is_never_below_the_quantity(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert 0 <= resource_amount("memory", text) - parse_quantity(text) < 1


@pytest.mark.parametrize("text", ["1e1000", "1e-1000", "1" * 5000, "0." + "1" * 5000, "-" + "9" * 5000, "1" * 65])
def test_a_quantity_of_many_digits_is_a_short_error(text: str) -> None:
    with pytest.raises(InvalidQuantity, match="is not a quantity") as raised:
        resource_amount("memory", text)
    assert len(str(raised.value)) < 200
    assert resource_amounts({"memory": text, "cpu": "1"}) == {"cpu": 1000}


def test_an_integer_of_many_digits_is_limited_or_rejected() -> None:
    assert resource_amount("memory", 10**5000) == 2**63 - 1
    with pytest.raises(InvalidQuantity, match="is negative"):
        resource_amount("memory", -(10**5000))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 KB"), (308_658_830, "309 MB"), (4_700_000_000, "4.7 GB")],
)
def test_sizes_have_ollamas_format(size: int, text: str) -> None:
    assert format_size(size) == text
