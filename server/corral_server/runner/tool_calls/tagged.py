"""Formats of sections: thinking between two tags, then an answer with calls between markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.sampling.grammar import NO_PREAMBLE, Preamble
from corral_server.runner.tool_calls.calls import FormatParser, ParsedCall, ParsedText, ParserConfig
from corral_server.runner.tool_calls.sections import Section, SectionParser
from corral_server.runner.tool_calls.thinking import THINK_TAGS, ThinkingSplitter
from corral_server.runner.tool_calls.tool import Tool, tool_name


@dataclass(frozen=True, slots=True)
class TaggedFormat:
    """``call_template`` is the text of a call with the placeholders ``NAME`` and ``ARGUMENTS``."""

    sections: Sequence[Section]
    call_template: str
    thinking_tags: tuple[str, str] = THINK_TAGS
    extra_markers: Sequence[str] = ()

    @property
    def markers(self) -> Sequence[str]:
        own = [text for section in self.sections for text in (section.open, section.close) if text]
        return (*self.thinking_tags, *own, *self.extra_markers)

    def parser(self, config: ParserConfig) -> FormatParser | None:
        answer = self.answer_parser(config) if config.tools else None
        if not config.thinks:
            return answer
        opened = config.prompt_end.rstrip().endswith(self.thinking_tags[0])
        splitter = ThinkingSplitter(self.thinking_tags, opened=opened)
        return ThinkingParser(splitter, answer, self.sections, config.tools)

    def answer_parser(self, config: ParserConfig) -> FormatParser:
        return SectionParser(self.sections, config.tools)

    def call_frame(self, name: str) -> tuple[str, str]:
        before, _, after = self.call_template.partition("ARGUMENTS")
        return before.replace("NAME", name), after

    def call_preamble(self, config: ParserConfig) -> Preamble:
        if not config.thinks:
            return NO_PREAMBLE
        opened = config.prompt_end.rstrip().endswith(self.thinking_tags[0])
        return Preamble(opening="" if opened else self.thinking_tags[0], closing=self.thinking_tags[1])

    def answer_preamble(self, config: ParserConfig) -> Preamble:
        return self.call_preamble(config)


class ThinkingParser:
    """Separates thinking from the answer, which has a parser of its own or is emitted unchanged.

    A call within the thinking is part of the thinking, unless it ends a generation whose thinking was never closed:
    some models omit the closing tag before a call.
    """

    def __init__(
        self,
        splitter: ThinkingSplitter,
        answer: FormatParser | None,
        sections: Sequence[Section],
        tools: Sequence[Tool],
    ) -> None:
        self._splitter = splitter
        self._answer = answer
        self._sections = sections
        self._tools = tools
        self._thoughts: list[str] = []

    def push(self, text: str) -> ParsedText:
        thinking, answer = self._splitter.push(text)
        if self._answer is None:
            return ParsedText(thinking, answer)
        if thinking:
            self._thoughts.append(thinking)
        return self._answer.push(answer)._replace(thinking=thinking) if answer else ParsedText(thinking)

    def end(self) -> ParsedText:
        thinking, answer = self._splitter.flush()
        if self._answer is None:
            return ParsedText(thinking, answer)
        if self._splitter.is_thinking:
            return ParsedText(thinking, calls=self._calls_in("".join((*self._thoughts, thinking))))
        first, rest = self._answer.push(answer), self._answer.end()
        return ParsedText(thinking, first.content + rest.content, first.calls + rest.calls)

    def _calls_in(self, thought: str) -> tuple[ParsedCall, ...]:
        """Return the calls of offered tools at the end of the thinking."""
        parser = SectionParser(self._sections, self._tools)
        calls = parser.push(thought).calls + parser.end().calls
        known = {tool_name(tool) for tool in self._tools}
        return calls if parser.ended_with_call and all(call.name in known for call in calls) else ()
