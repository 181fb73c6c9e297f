"""Streaming parser of tool calls between two markers.

Invariants:
- Text before a marker is emitted only when it cannot be the beginning of a marker.
- A section that contains no call is emitted unchanged, with its markers.
- A closing marker within the text of a call does not end the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from corral_server.runner.sampling.text import find_partial_stop
from corral_server.runner.tool_calls.calls import IncompleteCall, MalformedCall, ParsedCall, ParsedText
from corral_server.runner.tool_calls.tool import Tool

_MAX_TRIES = 32
"""Closing markers within one section before the section is taken as text."""


class SectionContent(NamedTuple):
    """Calls of a section, and the text after them."""

    calls: tuple[ParsedCall, ...]
    rest: str = ""


SectionReader = Callable[[str, Sequence[Tool]], SectionContent]
"""Reads the text of a section. Raises MalformedCall, or IncompleteCall if the text may continue."""


@dataclass(frozen=True, slots=True)
class Section:
    """A marked section of the output that contains tool calls.

    ``close`` is empty for a section that extends to the end of the generation. ``call_end`` ends each call of the
    section, if the family has such a marker: a generation that ends within its second call has made the first one.
    """

    open: str
    close: str
    read: SectionReader
    call_end: str = ""


def split_calls(body: str, begin: str, end: str) -> list[str]:
    """Return the texts of calls that each start with ``begin`` and may close with ``end``.

    Raises MalformedCall for other text before the first one, and IncompleteCall if there is none.
    """
    before, *parts = body.split(begin)
    if before.strip():
        raise MalformedCall("text before the first call")
    if not parts:
        raise IncompleteCall("no call")
    return [part.rstrip().removesuffix(end) for part in parts]


class SectionParser:
    """Parser of one generation's answer."""

    def __init__(self, sections: Sequence[Section], tools: Sequence[Tool]) -> None:
        self._sections = sections
        self._tools = tools
        self._starts = tuple({section.open[0] for section in sections})
        self._buffer = ""
        self._section: Section | None = None
        self._searched = self._tries = 0
        self._space_before = ""  # white space before the section, emitted only if the section is text
        self._after_call = False  # white space after a call is not emitted
        self._content: list[str] = []
        self._calls: list[ParsedCall] = []

    @property
    def ended_with_call(self) -> bool:
        """Whether the newest part of the answer is a call."""
        return self._after_call

    def push(self, text: str) -> ParsedText:
        if self._is_plain(text):
            return ParsedText("", text)
        self._buffer += text
        while self._section_step() if self._section else self._text_step():
            pass
        return self._take()

    def end(self) -> ParsedText:
        while self._section is not None or self._text_step():
            if self._section is not None and not self._section_step():
                self._end_in_section(self._section)
        self._emit(self._buffer)
        self._buffer = ""
        return self._take()

    def _is_plain(self, text: str) -> bool:
        """Fast path for most of the text: nothing is held back, and the text cannot begin a marker."""
        if self._buffer or self._after_call or not text or text[-1].isspace():
            return False
        return not any(start in text for start in self._starts)

    def _text_step(self) -> bool:
        """Emit the text before the next section; return whether a section begins."""
        found = [(at, -len(s.open), s) for s in self._sections if (at := self._buffer.find(s.open)) >= 0]
        at = min(found)[0] if found else min(find_partial_stop(self._buffer, s.open) for s in self._sections)
        text = self._buffer[:at].rstrip()
        if not found:
            self._emit(text)
            self._buffer = self._buffer[len(text) :]
            return False
        self._space_before = self._buffer[len(text) : at]
        self._emit(text)
        self._section = min(found, key=lambda entry: entry[:2])[2]
        self._buffer = self._buffer[at:]
        self._searched, self._tries = len(self._section.open), 0
        return True

    def _section_step(self) -> bool:
        """Look for the end of the section; return whether the section was decided on."""
        section = self._section
        if section is None or not section.close:
            return False
        at = self._buffer.find(section.close, self._searched)
        if at < 0:
            self._searched = max(self._searched, len(self._buffer) - len(section.close) + 1)
            return False
        self._tries += 1
        try:
            body = section.read(self._buffer[len(section.open) : at], self._tools)
        except IncompleteCall:
            self._searched = at + 1
            if self._tries >= _MAX_TRIES:
                self._reject(section)
        except MalformedCall:
            self._reject(section)
        else:
            self._accept(body, after=at + len(section.close))
        return True

    def _end_in_section(self, section: Section) -> None:
        """Handle a generation that ends within the section."""
        text = self._buffer[len(section.open) :]
        try:
            body = section.read(text, self._tools)
        except MalformedCall:
            whole, end, rest = text.rpartition(section.call_end) if section.call_end else ("", "", text)
            try:
                body = SectionContent(section.read(whole + end, self._tools).calls, rest)
            except MalformedCall:
                self._reject(section)
                return
        self._accept(body, after=len(self._buffer))

    def _accept(self, body: SectionContent, *, after: int) -> None:
        self._calls += body.calls
        self._buffer = body.rest + self._buffer[after:]
        self._section, self._space_before, self._after_call = None, "", True

    def _reject(self, section: Section) -> None:
        """Emit the opening marker as text, and parse the text after it again."""
        self._emit(self._space_before + section.open)
        self._buffer = self._buffer[len(section.open) :]
        self._section, self._space_before = None, ""

    def _emit(self, text: str) -> None:
        if self._after_call:
            text = text.lstrip()
        if text:
            self._after_call = False
            self._content.append(text)

    def _take(self) -> ParsedText:
        content, calls = "".join(self._content), tuple(self._calls)
        self._content, self._calls = [], []
        return ParsedText("", content, calls)
