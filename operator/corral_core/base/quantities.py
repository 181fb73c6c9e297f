"""Kubernetes resource quantities as exact integers, as the scheduler counts them.

- The unit of CPU is the millicore; of every other resource one byte, GPU or pod.
- Fractions of a unit are rounded up (``resource.Quantity.Value``).
- Amounts of zero are left out.
- A text of more than ``MAX_LENGTH`` characters, or with an exponent of more than two digits, is no quantity: its exact
  value could have millions of digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from corral_core.base.errors import InvalidQuantity
from corral_core.base.json_fields import JsonObject

ResourceAmounts = Mapping[str, int]
"""Resource name to amount: millicores for ``cpu``, otherwise bytes or a count."""

CPU, MEMORY, PODS, STORAGE = "cpu", "memory", "pods", "ephemeral-storage"
BYTE_RESOURCES = (MEMORY, STORAGE, "storage")

GPU_MEMORY, GPU_MEMORY_LIMIT = ":memory", ":memory-limit"
"""Suffixes of a GPU's resource name, for bytes that Kubernetes does not count: what pods take of shared GPUs, and the
most that a pod may have of each.
"""

MAX_LENGTH = 64
_GRAMMAR = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?")
_DECIMAL = dict(zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True))
_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)}
_MAX_AMOUNT = 2**63 - 1
_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def parse_quantity(value: object) -> Fraction:
    """Parse ``500m``, ``1.5Gi``, ``2e3`` or 2 to its exact value. Raises InvalidQuantity."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Fraction(value)
    match = _GRAMMAR.fullmatch(value) if isinstance(value, str) and len(value) <= MAX_LENGTH else None
    if match is None:
        raise InvalidQuantity(f"{_shown(value)} is not a quantity such as 2, 500m or 4Gi")
    sign, number, unit = match.groups()
    plain = Fraction(number.rstrip(".") if not number.startswith(".") else f"0{number}")
    return (-plain if sign == "-" else plain) * _scale(unit)


def _scale(unit: str | None) -> Fraction:
    if unit is None:
        return Fraction(1)
    if unit in _BINARY:
        return Fraction(_BINARY[unit])
    return Fraction(10) ** (_DECIMAL[unit] if unit in _DECIMAL else int(unit[1:]))


def resource_amount(resource: str, value: object) -> int:
    """Parse to the resource's unit, rounded up, at most 2^63 - 1. Raises InvalidQuantity, also for a negative value."""
    number = parse_quantity(value) * (1000 if resource == CPU else 1)
    if number < 0:
        raise InvalidQuantity(f"{_shown(value)} of {resource} is negative")
    return min(-(-number.numerator // number.denominator), _MAX_AMOUNT)


def resource_amounts(listed: JsonObject) -> dict[str, int]:
    """Parse ``requests``, ``limits`` or ``allocatable``; invalid quantities and zeros are left out."""
    found = {}
    for resource, value in listed.items():
        try:
            found[resource] = resource_amount(resource, value)
        except InvalidQuantity:
            continue
    return {resource: number for resource, number in found.items() if number}


def sum_amounts(several: Iterable[ResourceAmounts]) -> dict[str, int]:
    result: dict[str, int] = {}
    for each in several:
        for resource, number in each.items():
            result[resource] = result.get(resource, 0) + number
    return result


def max_amounts(one: ResourceAmounts, other: ResourceAmounts) -> dict[str, int]:
    """Return the larger amount of each resource."""
    return {resource: max(one.get(resource, 0), other.get(resource, 0)) for resource in {**one, **other}}


def format_amount(resource: str, number: int) -> str:
    """Format for messages: ``3.2 GiB memory``, ``1.5 CPU``, ``2 nvidia.com/gpu``, ``9 GiB gpu.nvidia.com/memory``."""
    if resource == CPU:
        return f"{_format_number(Fraction(number, 1000))} CPU"
    if resource.rpartition("/")[2] in BYTE_RESOURCES or resource.startswith("hugepages-"):
        return f"{format_bytes(number)} {resource}"
    if resource.endswith((GPU_MEMORY, GPU_MEMORY_LIMIT)):
        return f"{format_bytes(number)} GPU memory"
    return f"{number} {resource}"


def _shown(value: object) -> str:
    """Return the start of a value for messages; an integer of thousands of digits has no text."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "an integer"
    text = repr(value)
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."


def format_bytes(number: int) -> str:
    """Format for messages: ``3.2 GiB``, ``512 B``."""
    for size, unit in _UNITS:
        if abs(number) >= size:
            return f"{_format_number(Fraction(number, size))} {unit}"
    return f"{number} B"


def format_size(number: int) -> str:
    """Format a file size as ``ollama list`` does, in decimal units: ``1.3 GB`` (Ollama: format/bytes.go)."""
    for size, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if number >= size:
            value = number / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{number} B"


def _format_number(number: Fraction) -> str:
    """Format with two decimals below ten, else one, without trailing zeros."""
    text = f"{float(number):.{2 if abs(number) < 10 else 1}f}"
    return text.rstrip("0").rstrip(".")
