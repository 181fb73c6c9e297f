"""Llama 3: the whole answer is ``{"name": ..., "parameters": {...}}``, or follows ``<|python_tag|>``.

Models of unknown families use this parser too: an answer that begins with calls of offered tools is taken as calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.tool_calls.calls import FormatParser, MalformedCall, ParsedCall, ParsedText, ParserConfig
from corral_server.runner.tool_calls.json_calls import calls_from_json, decode_json
from corral_server.runner.tool_calls.sections import Section, SectionContent, SectionParser
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool, tool_name

_KEYS = ('{"name"', '{"type"', '{"function"', '{"parameters"', '{"arguments"', '[{"name"', '[{"type"', '[{"function"')
_SPACE = re.compile(r"\s+")
_BETWEEN = re.compile(r"[\s;,]*")
_LONGEST_KEY = 64
"""Characters at the beginning of an answer that are enough to contain its first key."""


def read_calls(body: str, _tools: Sequence[Tool]) -> SectionContent:
    """Read consecutive calls, separated by semicolons or white space."""
    calls: list[ParsedCall] = []
    at = 0
    while at < len(body):
        value, at = decode_json(body, at)
        calls += calls_from_json(value)
        between = _BETWEEN.match(body, at)
        at = between.end() if between else at
    if not calls:
        raise MalformedCall("no call")
    return SectionContent(tuple(calls))


@dataclass(frozen=True, slots=True)
class BareJsonFormat(TaggedFormat):
    """Format whose calls need no markers."""

    def answer_parser(self, config: ParserConfig) -> FormatParser:
        return _BareJsonParser(SectionParser(self.sections, config.tools), config.tools)


class _BareJsonParser:
    """Holds back an answer that begins like a call until it ends. Other answers go to the section parser.

    Text after the calls is part of the answer.
    """

    def __init__(self, inner: FormatParser, tools: Sequence[Tool]) -> None:
        self._inner = inner
        self._tools = tools
        self._names = {tool_name(tool) for tool in tools}
        self._buffer = ""
        self._deciding = True
        self._collecting = False

    def push(self, text: str) -> ParsedText:
        if not self._deciding and not self._collecting:
            return self._inner.push(text)
        self._buffer += text
        if self._deciding:
            self._decide()
        if self._deciding or self._collecting:
            return ParsedText()
        held, self._buffer = self._buffer, ""
        return self._inner.push(held)

    def end(self) -> ParsedText:
        calls, rest = self._calls()
        first, last = self._inner.push(rest), self._inner.end()
        return ParsedText("", first.content + last.content, calls + first.calls + last.calls)

    def _decide(self) -> None:
        start = _SPACE.sub("", self._buffer.lstrip()[:_LONGEST_KEY])
        if start and not any(key.startswith(start) or start.startswith(key) for key in _KEYS):
            self._deciding = False
        elif any(start.startswith(key) for key in _KEYS):
            self._deciding, self._collecting = False, True

    def _calls(self) -> tuple[tuple[ParsedCall, ...], str]:
        """Return the calls of offered tools at the beginning of the text, and the text after them."""
        calls, at = tuple[ParsedCall, ...](), 0
        while self._buffer[at:].strip():
            try:
                value, end = decode_json(self._buffer, at)
                found = calls_from_json(value)
            except MalformedCall:
                break
            if any(call.name not in self._names for call in found):
                break
            between = _BETWEEN.match(self._buffer, end)
            calls, at = calls + found, between.end() if between else end
        return calls, self._buffer[at:]


_CALL = '{"name": "NAME", "parameters": ARGUMENTS}'
LLAMA3 = BareJsonFormat((Section("<|python_tag|>", "", read_calls),), _CALL)
