"""From token bytes to text that may be shown: whole UTF-8 characters, and nothing that may become a stop string.

What always holds: the concatenation of all that ``push`` and ``flush`` return is the generated text up to, and without,
the first stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextAssembler:
    """The text of one generation, fed token by token."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        self.stopped_by = ""
        """The stop string that came; empty for as long as none has."""

    @property
    def held(self) -> int:
        """Whole characters that were taken and not shown yet."""
        return len(self._held)

    @property
    def unfinished(self) -> bool:
        """Whether a character has begun and not ended."""
        return bool(self._decoder.getstate()[0])

    def push(self, data: bytes) -> str:
        """Takes the bytes of one token; returns the text that became certain, which may be empty."""
        if self.stopped:
            return ""
        text = self._decoder.decode(data)
        return self._release(text) if self._stop else text

    def flush(self) -> str:
        """What was still held when the generation ended; an unfinished character becomes U+FFFD."""
        if self.stopped:
            return ""
        text = self._release(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _release(self, text: str) -> str:
        self._held += text
        found = [(at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            first, self.stopped_by = min(found)
            self.stopped = True
            shown, self._held = self._held[:first], ""
            return shown
        keep = min((possible_start(self._held, stop) for stop in self._stop), default=len(self._held))
        shown, self._held = self._held[:keep], self._held[keep:]
        return shown


def possible_start(text: str, stop: str) -> int:
    """The first index at which the rest of ``text`` is a beginning of ``stop``; ``len(text)`` when there is none."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return at
        at = text.find(stop[0], at + 1)
    return len(text)
