"""Text of a generation: token bytes become whole UTF-8 characters that are not part of a stop string.

Invariant: the concatenation of all that ``push`` and ``flush`` return is the generated text up to, and without, the
first stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its logprob in the model's own distribution, before sampling parameters and grammar change it.

    ``logprob`` is a natural logarithm, at most 0 and finite. ``token_bytes`` may be a part of a character, which
    ``token`` shows as U+FFFD. ``top`` are the most likely tokens, best first, without a ``top`` of their own.
    """

    token: str
    logprob: float
    token_bytes: bytes
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class TextChunk:
    """Text that is final: valid UTF-8, and no part of a possible stop string.

    ``logprobs`` are those of the tokens that end in this text. A token is held back as long as any of its characters,
    so the text of a chunk may begin within the token before; the last chunk may have no text.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class TextAssembler:
    """The text of one generation, fed token by token."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(text for text in stop if text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        self.stop_string = ""
        """The stop string that occurred; empty before."""

    @property
    def held_length(self) -> int:
        """Whole characters that are held back."""
        return len(self._held)

    @property
    def has_partial_character(self) -> bool:
        return bool(self._decoder.getstate()[0])

    def push(self, data: bytes) -> str:
        """Take the bytes of one token; return the text that became final, perhaps empty."""
        if self.stopped:
            return ""
        text = self._decoder.decode(data)
        return self._release(text) if self._stop else text

    def flush(self) -> str:
        """Return the rest at the end of the generation; an incomplete character becomes U+FFFD."""
        if self.stopped:
            return ""
        text = self._release(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _release(self, text: str) -> str:
        self._held += text
        found = [(at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            first, self.stop_string = min(found)
            self.stopped = True
            final, self._held = self._held[:first], ""
            return final
        keep = min((find_partial_stop(self._held, stop) for stop in self._stop), default=len(self._held))
        final, self._held = self._held[:keep], self._held[keep:]
        return final


def find_partial_stop(text: str, stop: str) -> int:
    """Return the first index at which the rest of ``text`` is a beginning of ``stop``; ``len(text)`` without one."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return at
        at = text.find(stop[0], at + 1)
    return len(text)
