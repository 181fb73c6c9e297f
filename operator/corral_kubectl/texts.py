"""Tables and times as kubectl prints them."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the last column is as long as its text."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]


def age(seconds: float) -> str:
    """Format with one or two units, as in the column AGE: ``48s``, ``3m12s``, ``2d``."""
    left = max(0, int(seconds))
    for index, (unit, size) in enumerate(_UNITS):
        if left >= size:
            count, rest = divmod(left, size)
            smaller = _UNITS[index + 1] if index + 1 < len(_UNITS) else None
            if smaller is None or count >= 10 or rest < smaller[1]:
                return f"{count}{unit}"
            return f"{count}{unit}{rest // smaller[1]}{smaller[0]}"
    return "0s"


def shortened(text: str, length: int) -> str:
    """Return one line of at most ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
