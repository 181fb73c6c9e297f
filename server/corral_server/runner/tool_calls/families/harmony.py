"""gpt-oss: OpenAI's harmony format, messages in channels.

``analysis`` is thinking, ``final`` is the answer, a message to ``functions.NAME`` is a tool call:

<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>commentary to=functions.x
<|constrain|>json<|message|>{...}<|call|>

Format: https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corral_server.runner.sampling.grammar import NO_PREAMBLE, Preamble
from corral_server.runner.sampling.text import find_partial_stop
from corral_server.runner.tool_calls.calls import FormatParser, MalformedCall, ParsedCall, ParsedText, ParserConfig
from corral_server.runner.tool_calls.json_calls import arguments_from_json, parse_json
from corral_server.runner.tool_calls.tool import tool_name

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_FUNCTIONS = "functions."
_ROLE = "assistant"
_HEADERS = (_CHANNEL, _START, _MESSAGE, _CONSTRAIN, "to=")
"""Beginnings of the part of a header after the role."""
_KIND = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=([\w.:-]+)")


@dataclass(frozen=True, slots=True)
class _Header:
    """Text before ``<|message|>``."""

    text: str
    channel: str = ""
    recipient: str = ""

    @classmethod
    def of(cls, text: str) -> _Header:
        channel, recipient = _KIND.search(text), _RECIPIENT.search(text)
        return cls(text, channel[1] if channel else "", recipient[1] if recipient else "")


def _after_role(text: str) -> str:
    """Return the text after ``<|start|>assistant``; empty while the role may still be incomplete."""
    if text.startswith(_START):
        text = text.removeprefix(_START).lstrip()
        return "" if _ROLE.startswith(text) else text.removeprefix(_ROLE).lstrip()
    return "" if _START.startswith(text) else text.lstrip()


class HarmonyParser:
    """Parser of one generation. It begins in a header or, if the prompt ends within a message, in that message.

    Text where a header is expected, but that is not a header, is part of the answer.
    """

    def __init__(self, config: ParserConfig) -> None:
        self._thinks = config.thinks
        self._names = {tool_name(tool) for tool in config.tools}
        self._buffer = ""
        self._header: _Header | None = _Header("")  # None while a header is being read
        self._thinking = self._content = ""
        self._calls: list[ParsedCall] = []
        start = config.prompt_end.rfind(_START)
        if start >= 0:
            self.push(config.prompt_end[start:])

    def push(self, text: str) -> ParsedText:
        self._buffer += text
        while self._step():
            pass
        return self._take()

    def end(self) -> ParsedText:
        held, self._buffer = self._buffer, ""
        if self._header is None:
            text = _after_role(held)
            self._content += "" if text.startswith(_HEADERS) else text  # an incomplete header has no text
        elif self._header.recipient:
            self._call(self._header, held, "")
        else:
            self._emit(self._header, held)
        return self._take()

    def _step(self) -> bool:
        """Parse a header or a message; return whether one was completed."""
        return self._read_header() if self._header is None else self._read_message(self._header)

    def _read_header(self) -> bool:
        text = _after_role(self._buffer)
        if not text:
            return False
        if not any(text.startswith(start) or start.startswith(text) for start in _HEADERS):
            self._header, self._buffer = _Header(""), text
            return True
        header, marker, rest = self._buffer.partition(_MESSAGE)
        if marker:
            self._header, self._buffer = _Header.of(header), rest
        return bool(marker)

    def _read_message(self, header: _Header) -> bool:
        markers = (*_ENDS, _START, _CHANNEL)
        found = [(at, marker) for marker in markers if (at := self._buffer.find(marker)) >= 0]
        if found:
            at, marker = min(found)
            self._finish(header, self._buffer[:at], marker if marker in _ENDS else "")
            self._buffer = self._buffer[at + len(marker) if marker in _ENDS else at :]
            self._header = None
            return True
        if not header.recipient:
            at = min(find_partial_stop(self._buffer, marker) for marker in markers)
            self._emit(header, self._buffer[:at])
            self._buffer = self._buffer[at:]
        return False

    def _finish(self, header: _Header, text: str, marker: str) -> None:
        if header.recipient:
            self._call(header, text, marker)
        else:
            self._emit(header, text)

    def _emit(self, header: _Header, text: str) -> None:
        if header.channel != "analysis":
            self._content += text
        elif self._thinks:
            self._thinking += text

    def _call(self, header: _Header, text: str, marker: str) -> None:
        """Add a tool call. A message that calls no function is emitted unchanged."""
        name = header.recipient.removeprefix(_FUNCTIONS)
        try:
            if not header.recipient.startswith(_FUNCTIONS) and name not in self._names:
                raise MalformedCall("not addressed to a function")
            self._calls.append(ParsedCall(name, arguments_from_json(parse_json(text) if text.strip() else {})))
        except MalformedCall:
            self._content += header.text.removeprefix(f"{_START}{_ROLE}") + _MESSAGE + text + marker

    def _take(self) -> ParsedText:
        taken = ParsedText(self._thinking, self._content, tuple(self._calls))
        self._thinking, self._content, self._calls = "", "", []
        return taken


class HarmonyFormat:
    """The markers occur in every answer, so every answer is parsed."""

    @property
    def markers(self) -> Sequence[str]:
        return (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS)

    def parser(self, config: ParserConfig) -> FormatParser | None:
        return HarmonyParser(config)

    def call_frame(self, name: str) -> tuple[str, str]:
        return f"{_CHANNEL}commentary to={_FUNCTIONS}{name} {_CONSTRAIN}json{_MESSAGE}", ""

    def call_preamble(self, config: ParserConfig) -> Preamble:
        return Preamble(f"{_CHANNEL}analysis{_MESSAGE}", "<|end|>", f"{_START}{_ROLE}")

    def answer_preamble(self, config: ParserConfig) -> Preamble:
        in_message = _MESSAGE in config.prompt_end.rpartition(_START)[2]
        return NO_PREAMBLE if in_message else replace(self.call_preamble(config), prefix=f"{_CHANNEL}final{_MESSAGE}")


HARMONY = HarmonyFormat()
