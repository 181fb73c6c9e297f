from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.errors import InvalidQuantity
from corral_core.quantities import amount, amounts, describe, largest, parse_quantity, total


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
def test_a_quantity_is_read_exactly(text: object, number: Fraction) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "Gi", "1 Gi", "1GB", "1.2.3", "0x10", "1e", "1e9999", "one", None, True, 1.5, ["1"]]
)
def test_what_is_no_quantity_is_refused(text: object) -> None:
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
def test_an_amount_is_in_the_resources_unit_and_rounded_up(resource: str, text: object, number: int) -> None:
    assert amount(resource, text) == number


def test_less_than_nothing_is_refused() -> None:
    with pytest.raises(InvalidQuantity, match="less than nothing"):
        amount("memory", "-1Gi")


def test_zeros_and_what_cannot_be_read_are_left_out() -> None:
    assert amounts({"cpu": "0", "memory": "1Ki", "strange": "a lot", "pods": 0}) == {"memory": 1024}


def test_amounts_are_added_and_compared_by_resource() -> None:
    assert total(({"cpu": 1, "memory": 2}, {"cpu": 3})) == {"cpu": 4, "memory": 2}
    assert largest({"cpu": 1, "memory": 2}, {"cpu": 3}) == {"cpu": 3, "memory": 2}


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
def test_an_amount_is_told_as_people_say_it(resource: str, number: int, text: str) -> None:
    assert describe(resource, number) == text


@given(st.integers(0, 10**6), st.sampled_from(["", "m", "k", "Ki", "M", "Mi", "G", "Gi"]))
def test_an_amount_is_never_less_than_the_quantity(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert 0 <= amount("memory", text) - parse_quantity(text) < 1
