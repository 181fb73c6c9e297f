"""A format made of sections: thinking between two tags first, then an answer with calls between markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.formats.calls import Call, Parsed, Parser, Wanted
from corral_server.runner.formats.sections import Section, SectionParser
from corral_server.runner.literals import quoted
from corral_server.runner.thinking import TAGS, ThinkingSplitter
from corral_server.runner.tools import Tool, name_of


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
        splitter = ThinkingSplitter(self.tags, opened=opened)
        return Thoughtful(splitter, answer, self.sections, wanted.tools)

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
    """Thinking before the answer, which has a parser of its own or is shown as it is.

    A call within a thought is a thought, but for one that ends a generation whose thought never ended: some models
    forget the tag before they call.
    """

    def __init__(
        self, splitter: ThinkingSplitter, answer: Parser | None, sections: Sequence[Section], tools: Sequence[Tool]
    ) -> None:
        self._splitter = splitter
        self._answer = answer
        self._sections = sections
        self._tools = tools
        self._thoughts: list[str] = []

    def push(self, text: str) -> Parsed:
        thinking, answer = self._splitter.push(text)
        if self._answer is None:
            return Parsed(thinking, answer)
        if thinking:
            self._thoughts.append(thinking)
        return self._answer.push(answer)._replace(thinking=thinking) if answer else Parsed(thinking)

    def end(self) -> Parsed:
        thinking, answer = self._splitter.flush()
        if self._answer is None:
            return Parsed(thinking, answer)
        if self._splitter.thinks:
            return Parsed(thinking, calls=self._called("".join((*self._thoughts, thinking))))
        first, rest = self._answer.push(answer), self._answer.end()
        return Parsed(thinking, first.content + rest.content, first.calls + rest.calls)

    def _called(self, thought: str) -> tuple[Call, ...]:
        """The calls of known tools that a thought ends with."""
        parser = SectionParser(self._sections, self._tools)
        calls = parser.push(thought).calls + parser.end().calls
        known = {name_of(tool) for tool in self._tools}
        return calls if parser.called and all(call.name in known for call in calls) else ()
