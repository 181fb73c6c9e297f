"""Progress of a pull on standard error: one line that is replaced on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from corral_server.local.pulls.progress_text import progress_text
from corral_server.pull.progress import PullProgress

LINE_INTERVAL = 10.0
"""Seconds between two lines of progress where the output is no terminal."""
_CLEAR = "\r\x1b[K"


class ProgressLine:
    """The progress of one pull on a stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._stage = ""
        self._at = 0.0

    def show(self, progress: PullProgress) -> None:
        """Show the progress of a pull."""
        text = progress_text(progress)
        if self._terminal:
            self._stream.write(f"{_CLEAR}{text}")
            self._stream.flush()
        elif progress.stage != self._stage or time.monotonic() - self._at >= LINE_INTERVAL:
            self._at = time.monotonic()
            print(text, file=self._stream, flush=True)
        self._stage = progress.stage

    def end(self) -> None:
        """Remove the line from a terminal."""
        if self._terminal and self._stage:
            self._stream.write(_CLEAR)
            self._stream.flush()


@contextlib.contextmanager
def progress_line(stream: TextIO | None = None) -> Iterator[ProgressLine]:
    """Show progress on standard error until the end of the block."""
    line = ProgressLine(stream or sys.stderr)
    try:
        yield line
    finally:
        line.end()
