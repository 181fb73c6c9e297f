"""Lines of text out of a byte stream, however long they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

LIMIT = 16 * 1024
"""Bytes of a line that are kept; the rest of a longer one is dropped."""


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Each line without its end and without blank ones; bytes that are no UTF-8 are replaced."""
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
