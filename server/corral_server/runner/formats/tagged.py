"""A format made of sections: thinking between two tags first, then an answer with calls between markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.formats.calls import Parsed, Parser, Wanted
from corral_server.runner.formats.sections import Section, SectionParser
from corral_server.runner.grammar import quoted
from corral_server.runner.thinking import TAGS, ThinkingSplitter


@dataclass(frozen=True, slots=True)
class Tagged:
    """``call`` is how a call is written, with ``NAME`` and ``ARGUMENTS`` in it."""

    sections: Sequence[Section]
    call: str
    tags: tuple[str, str] = TAGS
    more_markers: Sequence[str] = ()

    @property
    def markers(self) -> Sequence[str]:
        own = [text for section in self.sections for text in (section.open, section.close) if text]
        return (*self.tags, *own, *self.more_markers)

    def parser(self, wanted: Wanted) -> Parser | None:
        answer = self.answer(wanted) if wanted.tools else None
        if not wanted.thinks:
            return answer
        opened = wanted.prompt_end.rstrip().endswith(self.tags[0])
        return Thoughtful(ThinkingSplitter(self.tags, opened=opened), answer)

    def answer(self, wanted: Wanted) -> Parser:
        return SectionParser(self.sections, wanted.tools)

    def frame(self, name: str) -> tuple[str, str]:
        before, _, after = self.call.partition("ARGUMENTS")
        return before.replace("NAME", name), after

    def lead(self, wanted: Wanted) -> str:
        if not wanted.thinks:
            return ""
        opening, closing = map(quoted, self.tags)
        if wanted.prompt_end.rstrip().endswith(self.tags[0]):
            return f"thought {closing} blank"
        return f"({opening} thought {closing} blank)?"

    def answer_lead(self, wanted: Wanted) -> str:
        return self.lead(wanted)


class Thoughtful:
    """Thinking before the answer, which has a parser of its own or is shown as it is."""

    def __init__(self, splitter: ThinkingSplitter, answer: Parser | None) -> None:
        self._splitter = splitter
        self._answer = answer

    def push(self, text: str) -> Parsed:
        thinking, answer = self._splitter.push(text)
        if self._answer is None:
            return Parsed(thinking, answer)
        return self._answer.push(answer)._replace(thinking=thinking) if answer else Parsed(thinking)

    def end(self) -> Parsed:
        thinking, answer = self._splitter.flush()
        if self._answer is None:
            return Parsed(thinking, answer)
        first, rest = self._answer.push(answer), self._answer.end()
        return Parsed(thinking, first.content + rest.content, first.calls + rest.calls)
