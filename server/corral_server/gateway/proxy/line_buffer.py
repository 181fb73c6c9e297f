"""Whole lines or events of a streamed response.

A stream is forwarded in whole lines (JSON lines) or events (server-sent events), so that the error that ends a stream
which breaks off never follows half a line.
"""

from __future__ import annotations

from typing import Final

from corral_server.wire.errors import stream_error
from corral_server.wire.event_stream import EVENT_STREAM, JSON_LINES

LINE_LIMIT: Final = 1024 * 1024
"""Bytes without a delimiter after which a stream is forwarded as it is."""
_DELIMITERS: Final = {JSON_LINES: b"\n", EVENT_STREAM: b"\n\n"}


def stream_delimiter(content_type: bytes) -> bytes | None:
    """Return what ends a line or event of a stream of this type, None for a response that is not a stream."""
    return _DELIMITERS.get(content_type.partition(b";")[0].strip().lower())


class LineBuffer:
    """Keeps what follows the last delimiter for the next piece."""

    __slots__ = ("_delimiter", "_missing", "_tail")

    def __init__(self, delimiter: bytes) -> None:
        self._delimiter = delimiter
        self._tail = b""
        self._missing = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what can be forwarded now: up to the last delimiter, or everything when a line is too long."""
        if self._tail:
            piece, self._tail = self._tail + piece, b""
        if not piece.endswith(self._delimiter):
            found = piece.rfind(self._delimiter)
            cut = found + len(self._delimiter) if found >= 0 else 0
            if len(piece) - cut > LINE_LIMIT:
                self._missing = self._delimiter
                return piece
            piece, self._tail = piece[:cut], piece[cut:]
        if piece:
            self._missing = b""
        return piece

    def flush(self, piece: bytes) -> bytes:
        """Return the end of a complete stream."""
        return self._tail + piece

    def error(self, path: str, text: str) -> bytes:
        """Return the end of an incomplete stream: an error as a line or event of its own."""
        return self._missing + stream_error(path, text)
