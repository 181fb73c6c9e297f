"""Set of byte ranges of a file, as the downloader completes them.

- Ranges are half-open, sorted, disjoint and not adjacent.
- The set of a download stays small: parts are handed out from the front of the file.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class RangeSet:
    """Mutable set of ranges; not thread-safe."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._ranges == other._ranges

    __hash__ = None  # type: ignore[assignment]

    @property
    def size(self) -> int:
        """Number of bytes in the set."""
        return sum(end - start for start, end in self._ranges)

    @property
    def end(self) -> int:
        """End of the last range, 0 if there is none."""
        return self._ranges[-1][1] if self._ranges else 0

    @property
    def front(self) -> int:
        """Number of bytes that are in the set from the start of the file on."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    def add(self, start: int, end: int) -> None:
        """Add the range; an empty one changes nothing. Raises ValueError if it is not a range."""
        if not 0 <= start <= end:
            raise ValueError(f"{start}-{end} is not a range")
        if start == end:
            return
        first = bisect_left(self._ranges, start, key=lambda item: item[1])
        last = bisect_right(self._ranges, end, key=lambda item: item[0])
        if first < last:
            start = min(start, self._ranges[first][0])
            end = max(end, self._ranges[last - 1][1])
        self._ranges[first:last] = [(start, end)]

    def missing(self, total: int) -> list[Range]:
        """Return the ranges below ``total`` that are not in the set."""
        gaps, position = [], 0
        for start, end in self._ranges:
            if start >= total:
                break
            if position < start:
                gaps.append((position, start))
            position = end
        if position < total:
            gaps.append((position, total))
        return gaps

    def copy(self) -> RangeSet:
        """Return an independent copy."""
        result = RangeSet()
        result._ranges = list(self._ranges)
        return result
