"""Text lines from a byte stream, with a bound on their length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

LIMIT = 16 * 1024
"""Bytes of a line that are kept; the rest of a longer line is dropped."""


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield the lines without line ends, blank ones left out; invalid UTF-8 is replaced."""
    rest, skipping = b"", False
    while data := await stream.read(65536):
        *whole, tail = data.split(b"\n")
        for piece in whole:
            if not skipping and (line := _text(rest + piece)):
                yield line
            rest, skipping = b"", False
        rest = rest + tail if not skipping else b""
        if len(rest) > LIMIT:
            yield _text(rest)
            rest, skipping = b"", True
    if line := _text(rest):
        yield line


def _text(line: bytes) -> str:
    return line[:LIMIT].decode(errors="replace").strip()
