"""Streaming split of a model's thinking, which stands between two tags at the beginning, from its answer.

Invariants:
- Text that may be part of a tag is held back.
- The tags and the white space around them are never emitted; all other text is emitted once, in order.
"""

from __future__ import annotations

from typing import NamedTuple

from corral_server.runner.sampling.text import find_partial_stop

THINK_TAGS = ("<think>", "</think>")


class SplitText(NamedTuple):
    """Text that can be emitted. Both fields may be empty."""

    thinking: str
    answer: str


class ThinkingSplitter:
    """Splits the text of one generation. ``opened`` means that the prompt ends with the opening tag."""

    def __init__(self, tags: tuple[str, str] = THINK_TAGS, *, opened: bool = False) -> None:
        self._open, self._close = tags
        self._buffer = ""
        self._state = "thinking" if opened else "start"
        self._began = False  # the current part has emitted more than white space

    @property
    def is_thinking(self) -> bool:
        """Whether thinking has begun and not ended."""
        return self._state == "thinking"

    def push(self, text: str) -> SplitText:
        self._buffer += text
        thinking = answer = ""
        if self._state == "start":
            self._start()
        if self._state == "thinking":
            thinking = self._think()
        if self._state == "answer":
            answer = self._trimmed(self._buffer)
            self._buffer = ""
        return SplitText(thinking, answer)

    def flush(self) -> SplitText:
        """Return the text that was held back when the generation ended."""
        held, self._buffer = self._buffer, ""
        if self._state == "thinking":
            return SplitText(self._trimmed(held), "")
        return SplitText("", held if self._state == "start" else self._trimmed(held))

    def _start(self) -> None:
        """Look for the opening tag after white space; any other text means that there is no thinking."""
        text = self._buffer.lstrip()
        if text.startswith(self._open):
            self._buffer, self._state = text[len(self._open) :], "thinking"
        elif not self._open.startswith(text):
            self._state, self._began = "answer", True

    def _think(self) -> str:
        before, tag, after = self._buffer.partition(self._close)
        if tag:
            thinking = self._trimmed(before).rstrip()
            self._buffer, self._state, self._began = after, "answer", False
            return thinking
        keep = _complete_length(self._buffer, self._close)
        thinking, self._buffer = self._trimmed(self._buffer[:keep]), self._buffer[keep:]
        return thinking

    def _trimmed(self, text: str) -> str:
        """Remove the white space at the beginning of a part."""
        if self._began:
            return text
        text = text.lstrip()
        self._began = bool(text)
        return text


def _complete_length(text: str, close: str) -> int:
    """Return the length of the thinking that can be emitted.

    Trailing white space and a possible beginning of the closing tag are held back.
    """
    return len(text[: find_partial_stop(text, close)].rstrip())
