"""Amounts of resources, as Kubernetes writes them, as exact whole numbers, as the scheduler counts them.

CPU counts in thousandths of a core, everything else in units: bytes, GPUs, pods. A fraction of the unit counts as a
whole one, as it does for the scheduler. Zero amounts are left out: nothing is needed of what is asked for with 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from corral_core.errors import InvalidQuantity
from corral_core.jsonfields import Json

Amounts = Mapping[str, int]
"""Resource name to amount: thousandths of a core for ``cpu``, bytes, or a count."""

CPU, MEMORY, PODS = "cpu", "memory", "pods"
BYTES = (MEMORY, "ephemeral-storage", "storage")
NOTHING: Amounts = {}

_GRAMMAR = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?")
_DECIMAL = dict(zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True))
_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)}
_LARGEST = 2**63 - 1
_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def parse_quantity(value: object) -> Fraction:
    """The exact number that ``500m``, ``1.5Gi``, ``2e3`` or 2 stands for. Raises InvalidQuantity."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    match = _GRAMMAR.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidQuantity(f"{value!r} is no quantity such as 2, 500m or 4Gi")
    sign, number, unit = match.groups()
    plain = Fraction(number.rstrip(".") if not number.startswith(".") else f"0{number}")
    return (-plain if sign == "-" else plain) * _scale(unit)


def _scale(unit: str | None) -> Fraction:
    if unit is None:
        return Fraction(1)
    if unit in _BINARY:
        return Fraction(_BINARY[unit])
    return Fraction(10) ** (_DECIMAL[unit] if unit in _DECIMAL else int(unit[1:]))


def amount(resource: str, value: object) -> int:
    """The quantity in the resource's unit, rounded up, at most 2^63 - 1. Raises InvalidQuantity; below 0 too."""
    number = parse_quantity(value) * (1000 if resource == CPU else 1)
    if number < 0:
        raise InvalidQuantity(f"{value!r} of {resource} is less than nothing")
    return min(-(-number.numerator // number.denominator), _LARGEST)


def amounts(listed: Json) -> dict[str, int]:
    """A ``requests``, ``limits`` or ``allocatable`` as Amounts; what is no quantity is left out, as are zeros."""
    found = {}
    for resource, value in listed.items():
        try:
            found[resource] = amount(resource, value)
        except InvalidQuantity:
            continue
    return {resource: number for resource, number in found.items() if number}


def total(several: Iterable[Amounts]) -> dict[str, int]:
    result: dict[str, int] = {}
    for each in several:
        for resource, number in each.items():
            result[resource] = result.get(resource, 0) + number
    return result


def largest(one: Amounts, other: Amounts) -> dict[str, int]:
    """The greater amount of each resource."""
    return {resource: max(one.get(resource, 0), other.get(resource, 0)) for resource in {**one, **other}}


def describe(resource: str, number: int) -> str:
    """For people: ``3.2 GiB memory``, ``1.5 CPU``, ``2 nvidia.com/gpu``."""
    if resource == CPU:
        return f"{_short(Fraction(number, 1000))} CPU"
    if resource in BYTES or resource.startswith("hugepages-"):
        return f"{_bytes(number)} {resource}"
    return f"{number} {resource}"


def _bytes(number: int) -> str:
    for size, unit in _UNITS:
        if abs(number) >= size:
            return f"{_short(Fraction(number, size))} {unit}"
    return f"{number} B"


def _short(number: Fraction) -> str:
    """Two decimals below ten, else one; none that is zero."""
    text = f"{float(number):.{2 if abs(number) < 10 else 1}f}"
    return text.rstrip("0").rstrip(".")
