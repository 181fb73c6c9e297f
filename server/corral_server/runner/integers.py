"""GBNF for the decimal integers between two limits, digit by digit."""

from __future__ import annotations

_DIGITS = 16
"""Digits of the largest magnitude that an open range lets through."""


def between(low: int | None, high: int | None) -> str:
    """An expression for low to high, both included; None is open. Needs low <= high."""
    top = 10**_DIGITS - 1
    low, high = -top if low is None else low, top if high is None else high
    options = []
    if low < 0:
        negative = "|".join(_unsigned(max(1, -high), -low))
        options.append(f'"-" ({negative})')
    if high >= 0:
        options += _unsigned(max(0, low), high)
    return " | ".join(options)


def _unsigned(low: int, high: int) -> list[str]:
    """Alternatives for 0 <= low to high, one or more for each number of digits."""
    options: list[str] = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        last = min(high, 10**digits - 1)
        options += _same_length(str(first), str(last))
    return options


def _same_length(low: str, high: str) -> list[str]:
    """Alternatives for low to high, which have the same number of digits."""
    rest = len(low) - 1
    if low[0] == high[0]:
        if not rest:
            return [f"[{low}]"]
        return [f"[{low[0]}] ({' | '.join(_same_length(low[1:], high[1:]))})"]
    if not rest:
        return [f"[{low}-{high}]"]
    first, last, options = int(low[0]), int(high[0]), []
    if low[1:] != "0" * rest:
        options.append(f"[{low[0]}] ({' | '.join(_same_length(low[1:], '9' * rest))})")
        first += 1
    if high[1:] != "9" * rest:
        last -= 1
    if first <= last:
        options.append(f"[{first}-{last}] [0-9]{{{rest}}}")
    if high[1:] != "9" * rest:
        options.append(f"[{high[0]}] ({' | '.join(_same_length('0' * rest, high[1:]))})")
    return options
