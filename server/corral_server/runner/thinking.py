"""Telling a model's thinking from its answer while the text streams: it stands between two tags, before all else.

What always holds: nothing is shown that may still turn out to be a part of a tag, the tags and the white space around
them are never shown, and all other text is shown once, in order.
"""

from __future__ import annotations

from typing import NamedTuple

from corral_server.runner.text import possible_start

TAGS = ("<think>", "</think>")


class Shown(NamedTuple):
    """What became certain of either kind; both may be empty."""

    thinking: str
    answer: str


class ThinkingSplitter:
    """One generation's text; ``opened`` when the prompt itself already ends with the opening tag."""

    def __init__(self, tags: tuple[str, str] = TAGS, *, opened: bool = False) -> None:
        self._open, self._close = tags
        self._held = ""
        self._state = "thinking" if opened else "start"
        self._began = False  # something other than white space of the present part was shown

    @property
    def thinks(self) -> bool:
        """Whether a thought has begun and not ended."""
        return self._state == "thinking"

    def push(self, text: str) -> Shown:
        self._held += text
        thinking = answer = ""
        if self._state == "start":
            self._start()
        if self._state == "thinking":
            thinking = self._think()
        if self._state == "answer":
            answer = self._trimmed(self._held)
            self._held = ""
        return Shown(thinking, answer)

    def flush(self) -> Shown:
        """What was still held when the generation ended."""
        held, self._held = self._held, ""
        if self._state == "thinking":
            return Shown(self._trimmed(held), "")
        return Shown("", held if self._state == "start" else self._trimmed(held))

    def _start(self) -> None:
        """White space may come before the opening tag; any other text means that there is no thinking."""
        text = self._held.lstrip()
        if text.startswith(self._open):
            self._held, self._state = text[len(self._open) :], "thinking"
        elif not self._open.startswith(text):
            self._state, self._began = "answer", True

    def _think(self) -> str:
        before, tag, after = self._held.partition(self._close)
        if tag:
            shown = self._trimmed(before).rstrip()
            self._held, self._state, self._began = after, "answer", False
            return shown
        keep = _certain(self._held, self._close)
        shown, self._held = self._trimmed(self._held[:keep]), self._held[keep:]
        return shown

    def _trimmed(self, text: str) -> str:
        """Without the white space that a part begins with."""
        if self._began:
            return text
        text = text.lstrip()
        self._began = bool(text)
        return text


def _certain(text: str, close: str) -> int:
    """How much of a thought can be shown: not its trailing white space, and not what may begin the closing tag."""
    return len(text[: possible_start(text, close)].rstrip())
