"""Calls that stand between two markers, told from the text around them while it streams.

What always holds: what is shown before a marker is certain; a section whose text is no call is shown as it came, with
its markers; a marker inside of a call's own text does not end it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from corral_server.runner.formats.calls import Call, Malformed, Parsed, Unfinished
from corral_server.runner.text import possible_start
from corral_server.runner.tools import Tool

_MAX_TRIES = 32
"""How often a closing marker may turn out to be a part of a call's text."""


class Body(NamedTuple):
    """What a section's text is: calls, and text that follows them."""

    calls: tuple[Call, ...]
    rest: str = ""


Read = Callable[[str, Sequence[Tool]], Body]
"""Raises Malformed, or Unfinished when the text may go on."""


@dataclass(frozen=True, slots=True)
class Section:
    """``close`` is empty for a section that goes to the end of the generation.

    ``each`` ends every one of its calls, where something does: a generation that breaks off within the second call has
    made the first one.
    """

    open: str
    close: str
    read: Read
    each: str = ""


class SectionParser:
    """One generation's answer."""

    def __init__(self, sections: Sequence[Section], tools: Sequence[Tool]) -> None:
        self._sections = sections
        self._tools = tools
        self._starts = tuple({section.open[0] for section in sections})
        self._held = ""
        self._section: Section | None = None
        self._searched = self._tries = 0
        self._gap = ""  # white space before the section, which is shown only when it turns out to be text
        self._called = False  # a call was the last that came: white space after it is not shown
        self._content: list[str] = []
        self._calls: list[Call] = []

    @property
    def called(self) -> bool:
        """Whether a call was the last that came."""
        return self._called

    def push(self, text: str) -> Parsed:
        if self._is_plain(text):
            return Parsed("", text)
        self._held += text
        while self._section_step() if self._section else self._text_step():
            pass
        return self._taken()

    def end(self) -> Parsed:
        while self._section is not None or self._text_step():
            if self._section is not None and not self._section_step():
                self._last(self._section)
        self._show(self._held)
        self._held = ""
        return self._taken()

    def _is_plain(self, text: str) -> bool:
        """The short way for most of the text: nothing is held, and nothing in it can begin a marker."""
        if self._held or self._called or not text or text[-1].isspace():
            return False
        return not any(start in text for start in self._starts)

    def _text_step(self) -> bool:
        """Shows what is certain; True when a section begins."""
        found = [(at, -len(s.open), s) for s in self._sections if (at := self._held.find(s.open)) >= 0]
        at = min(found)[0] if found else min(possible_start(self._held, s.open) for s in self._sections)
        shown = self._held[:at].rstrip()
        if not found:
            self._show(shown)
            self._held = self._held[len(shown) :]
            return False
        self._gap = self._held[len(shown) : at]
        self._show(shown)
        self._section = min(found, key=lambda entry: entry[:2])[2]
        self._held = self._held[at:]
        self._searched, self._tries = len(self._section.open), 0
        return True

    def _section_step(self) -> bool:
        """Looks for the section's end; True when something was decided."""
        section = self._section
        if section is None or not section.close:
            return False
        at = self._held.find(section.close, self._searched)
        if at < 0:
            self._searched = max(self._searched, len(self._held) - len(section.close) + 1)
            return False
        self._tries += 1
        try:
            body = section.read(self._held[len(section.open) : at], self._tools)
        except Unfinished:
            self._searched = at + 1
            if self._tries >= _MAX_TRIES:
                self._as_text(section)
        except Malformed:
            self._as_text(section)
        else:
            self._found(body, after=at + len(section.close))
        return True

    def _last(self, section: Section) -> None:
        """The generation ended within the section."""
        text = self._held[len(section.open) :]
        try:
            body = section.read(text, self._tools)
        except Malformed:
            whole, end, rest = text.rpartition(section.each) if section.each else ("", "", text)
            try:
                body = Body(section.read(whole + end, self._tools).calls, rest)
            except Malformed:
                self._as_text(section)
                return
        self._found(body, after=len(self._held))

    def _found(self, body: Body, *, after: int) -> None:
        self._calls += body.calls
        self._held = body.rest + self._held[after:]
        self._section, self._gap, self._called = None, "", True

    def _as_text(self, section: Section) -> None:
        """The opening marker is text; what follows it is looked at again."""
        self._show(self._gap + section.open)
        self._held = self._held[len(section.open) :]
        self._section, self._gap = None, ""

    def _show(self, text: str) -> None:
        if self._called:
            text = text.lstrip()
        if text:
            self._called = False
            self._content.append(text)

    def _taken(self) -> Parsed:
        content, calls = "".join(self._content), tuple(self._calls)
        self._content, self._calls = [], []
        return Parsed("", content, calls)
