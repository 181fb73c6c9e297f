"""Ranges of remote files: the request's Range, the response's Content-Range, and the stream of the body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corral_core.base.errors import SourceError
from corral_server.pull.errors import FileChanged, TransientError
from corral_server.pull.http.connections import Response

MAX_SIZE: Final = 2**53
"""Bytes; larger sizes and offsets are not believed."""

_CONTENT_RANGE: Final = re.compile(r"bytes\s+([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16}|\*)", re.ASCII | re.IGNORECASE)
_UNSATISFIED: Final = re.compile(r"bytes\s+\*/([0-9]{1,16})", re.ASCII | re.IGNORECASE)
_UNENCODED: Final = frozenset({"", "identity", "aws-chunked"})  # S3 returns the latter for uploads in chunks


@dataclass(frozen=True, slots=True)
class ContentRange:
    """``end`` is the offset after the last byte; ``total`` is None for ``*``."""

    start: int
    end: int
    total: int | None


def range_header(start: int, end: int | None) -> dict[str, str]:
    """Return the Range header for the bytes from ``start`` to before ``end``; none for the whole file."""
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"the range from {start} to {end} is empty")
    if start == 0 and end is None:
        return {}
    return {"range": f"bytes={start}-{'' if end is None else end - 1}"}


def parse_content_range(value: str) -> ContentRange | None:
    """Return the range of a 206 response, None if it is not valid (RFC 9110 section 14.4)."""
    found = _CONTENT_RANGE.fullmatch(value.strip())
    if found is None:
        return None
    start, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if last < start or last >= MAX_SIZE or (total is not None and last >= total):
        return None
    return ContentRange(start, last + 1, total)


def unsatisfied_size(headers: Mapping[str, str]) -> int | None:
    """Return the size of the file that a 416 response names."""
    found = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
    return int(found[1]) if found else None


def version_of(headers: Mapping[str, str]) -> str:
    """Return what identifies the file's version: the ETag, else Last-Modified, else nothing."""
    return headers.get("etag") or headers.get("last-modified") or ""


class RangeStream:
    """Body of a 200 or 206 response (``remote_files.ByteStream``)."""

    def __init__(self, response: Response, asked: ContentRange | None) -> None:
        """``asked`` is the range of a 206 response, None for the whole file."""
        self._response = response
        self.start = asked.start if asked else 0
        self.total = asked.total if asked else response.length
        self.version = version_of(response.headers)
        self._position = self.start
        self._end = asked.end if asked else self.total

    def readinto(self, buffer: memoryview) -> int:
        """Read what has arrived, at least one byte, and return the number of bytes; 0 at the end."""
        count = self._response.readinto(buffer)
        self._position += count
        if self._end is not None and self._position > self._end:
            raise FileChanged(f"{self._response.url.authority} sends more bytes than the response's header says")
        if not count and len(buffer) and self._end is not None and self._position < self._end:
            missing = self._end - self._position
            raise TransientError(f"{self._response.url.authority} ended the response {missing} bytes too early")
        return count

    def close(self) -> None:
        """Close the response. A connection whose response was read to its end is used again."""
        self._response.close()


def open_stream(response: Response, start: int, end: int | None) -> RangeStream:
    """Return the stream of a 200 or 206 response. Raises SourceError and FileChanged."""
    shown = response.url
    if (encoding := response.headers.get("content-encoding", "").strip().lower()) not in _UNENCODED:
        raise SourceError(
            f"{shown} is sent compressed ({encoding[:20]}) although the request excludes it; "
            "configure the server to send the file as it is"
        )
    if response.status == 200:
        return RangeStream(response, None)
    found = parse_content_range(response.headers.get("content-range", ""))
    if found is None or found.start != start or (end is not None and found.end > end):
        said = response.headers.get("content-range", "no Content-Range")[:60]
        raise FileChanged(f"{shown} answers another range than bytes {start} to {end or 'the end'}: {said!r}")
    if response.length is not None and response.length != found.end - found.start:
        raise FileChanged(f"{shown} answers a range whose length is not that of its body")
    if end is not None and found.total is not None and found.total < end:
        raise FileChanged(f"{shown} has {found.total} bytes; at least {end} were expected")
    return RangeStream(response, found)
