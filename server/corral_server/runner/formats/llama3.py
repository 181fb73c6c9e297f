"""Llama 3: the whole answer is ``{"name": ..., "parameters": {...}}``, or follows ``<|python_tag|>``.

Used for models of no known family too: an answer that is nothing but calls of tools that there are is taken as such.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.formats.calls import Call, Malformed, Parsed, Parser, Wanted
from corral_server.runner.formats.json_calls import calls_of, decode
from corral_server.runner.formats.sections import Body, Section, SectionParser
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool, name_of

_KEYS = ('{"name"', '{"type"', '{"function"', '{"parameters"', '{"arguments"', '[{"name"', '[{"type"', '[{"function"')
_SPACE = re.compile(r"\s+")
_BETWEEN = re.compile(r"[\s;,]*")
_LONGEST = 64
"""Characters at the start of an answer that surely hold its first key."""


def read(body: str, _tools: Sequence[Tool]) -> Body:
    """Calls one after the other, with a semicolon or white space between them."""
    calls: list[Call] = []
    at = 0
    while at < len(body):
        value, at = decode(body, at)
        calls += calls_of(value)
        between = _BETWEEN.match(body, at)
        at = between.end() if between else at
    if not calls:
        raise Malformed("there is no call")
    return Body(tuple(calls))


@dataclass(frozen=True, slots=True)
class Bare(Tagged):
    """Calls need no markers around them."""

    def answer(self, wanted: Wanted) -> Parser:
        return _BareParser(SectionParser(self.sections, wanted.tools), wanted.tools)


class _BareParser:
    """Holds an answer that begins like a call until it ends; any other goes to the parser for sections."""

    def __init__(self, inner: Parser, tools: Sequence[Tool]) -> None:
        self._inner = inner
        self._tools = tools
        self._names = {name_of(tool) for tool in tools}
        self._held = ""
        self._deciding = True
        self._collecting = False

    def push(self, text: str) -> Parsed:
        if not self._deciding and not self._collecting:
            return self._inner.push(text)
        self._held += text
        if self._deciding:
            self._decide()
        if self._deciding or self._collecting:
            return Parsed()
        held, self._held = self._held, ""
        return self._inner.push(held)

    def end(self) -> Parsed:
        calls = self._calls()
        if calls:
            return Parsed(calls=calls)
        first, rest = self._inner.push(self._held), self._inner.end()
        return Parsed("", first.content + rest.content, first.calls + rest.calls)

    def _decide(self) -> None:
        start = _SPACE.sub("", self._held.lstrip()[:_LONGEST])
        if start and not any(key.startswith(start) or start.startswith(key) for key in _KEYS):
            self._deciding = False
        elif any(start.startswith(key) for key in _KEYS):
            self._deciding, self._collecting = False, True

    def _calls(self) -> tuple[Call, ...]:
        """Empty unless all of the text are calls of known tools."""
        try:
            calls = read(self._held, self._tools).calls if self._held.strip() else ()
        except Malformed:
            return ()
        return calls if all(call.name in self._names for call in calls) else ()


_CALL = '{"name": "NAME", "parameters": ARGUMENTS}'
LLAMA3 = Bare((Section("<|python_tag|>", "", read),), _CALL)
