"""Llama 3: the whole answer is ``{"name": ..., "parameters": {...}}``, or follows ``<|python_tag|>``.

Used for models of no known family too: where an answer begins with calls of tools that there are, it is taken so.
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
    """Holds an answer that begins like a call until it ends; any other goes to the parser for sections.

    What follows the calls is text.
    """

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
        calls, rest = self._calls()
        first, last = self._inner.push(rest), self._inner.end()
        return Parsed("", first.content + last.content, calls + first.calls + last.calls)

    def _decide(self) -> None:
        start = _SPACE.sub("", self._held.lstrip()[:_LONGEST])
        if start and not any(key.startswith(start) or start.startswith(key) for key in _KEYS):
            self._deciding = False
        elif any(start.startswith(key) for key in _KEYS):
            self._deciding, self._collecting = False, True

    def _calls(self) -> tuple[tuple[Call, ...], str]:
        """The calls of known tools that the text begins with, and the text after them."""
        calls, at = tuple[Call, ...](), 0
        while self._held[at:].strip():
            try:
                value, end = decode(self._held, at)
                found = calls_of(value)
            except Malformed:
                break
            if any(call.name not in self._names for call in found):
                break
            between = _BETWEEN.match(self._held, end)
            calls, at = calls + found, between.end() if between else end
        return calls, self._held[at:]


_CALL = '{"name": "NAME", "parameters": ARGUMENTS}'
LLAMA3 = Bare((Section("<|python_tag|>", "", read),), _CALL)
