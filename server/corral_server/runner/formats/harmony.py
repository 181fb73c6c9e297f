"""gpt-oss: messages with channels. ``analysis`` is thinking, ``final`` the answer, one ``to=functions.x`` a call.

<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>commentary to=functions.x
<|constrain|>json<|message|>{...}<|call|>
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.formats.calls import Call, Malformed, Parsed, Parser, Wanted
from corral_server.runner.formats.json_calls import arguments_of, whole
from corral_server.runner.text import possible_start
from corral_server.runner.tools import name_of

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>")
_FUNCTIONS = "functions."
_ROLE = "assistant"
_HEADERS = (_CHANNEL, _START, _MESSAGE, _CONSTRAIN, "to=")
"""What the rest of a header begins with."""
_KIND = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=([\w.:-]+)")


@dataclass(frozen=True, slots=True)
class _Header:
    """What comes before ``<|message|>``."""

    text: str
    channel: str = ""
    recipient: str = ""

    @classmethod
    def of(cls, text: str) -> _Header:
        channel, recipient = _KIND.search(text), _RECIPIENT.search(text)
        return cls(text, channel[1] if channel else "", recipient[1] if recipient else "")


def _after_role(text: str) -> str:
    """What follows ``<|start|>assistant``, where that is; empty while it may still come."""
    if text.startswith(_START):
        text = text.removeprefix(_START).lstrip()
        return "" if _ROLE.startswith(text) else text.removeprefix(_ROLE).lstrip()
    return "" if _START.startswith(text) else text.lstrip()


class HarmonyParser:
    """One generation; it begins in a header or, when the prompt ends in a message, in that message.

    What stands where a header should begin, and is none, is the answer.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._thinks = wanted.thinks
        self._names = {name_of(tool) for tool in wanted.tools}
        self._held = ""
        self._header: _Header | None = _Header("")  # None while a header is being read
        self._thinking = self._content = ""
        self._calls: list[Call] = []
        start = wanted.prompt_end.rfind(_START)
        if start >= 0:
            self.push(wanted.prompt_end[start:])

    def push(self, text: str) -> Parsed:
        self._held += text
        while self._step():
            pass
        return self._taken()

    def end(self) -> Parsed:
        held, self._held = self._held, ""
        if self._header is None:
            text = _after_role(held)
            self._content += "" if text.startswith(_HEADERS) else text  # a header that broke off says nothing
        elif self._header.recipient:
            self._call(self._header, held, "")
        else:
            self._show(self._header, held)
        return self._taken()

    def _step(self) -> bool:
        """True when a header or a message was finished."""
        return self._read_header() if self._header is None else self._read_message(self._header)

    def _read_header(self) -> bool:
        text = _after_role(self._held)
        if not text:
            return False
        if not any(text.startswith(start) or start.startswith(text) for start in _HEADERS):
            self._header, self._held = _Header(""), text
            return True
        header, marker, rest = self._held.partition(_MESSAGE)
        if marker:
            self._header, self._held = _Header.of(header), rest
        return bool(marker)

    def _read_message(self, header: _Header) -> bool:
        markers = (*_ENDS, _START, _CHANNEL)
        found = [(at, marker) for marker in markers if (at := self._held.find(marker)) >= 0]
        if found:
            at, marker = min(found)
            self._finish(header, self._held[:at], marker if marker in _ENDS else "")
            self._held = self._held[at + len(marker) if marker in _ENDS else at :]
            self._header = None
            return True
        if not header.recipient:
            at = min(possible_start(self._held, marker) for marker in markers)
            self._show(header, self._held[:at])
            self._held = self._held[at:]
        return False

    def _finish(self, header: _Header, text: str, marker: str) -> None:
        if header.recipient:
            self._call(header, text, marker)
        else:
            self._show(header, text)

    def _show(self, header: _Header, text: str) -> None:
        if header.channel != "analysis":
            self._content += text
        elif self._thinks:
            self._thinking += text

    def _call(self, header: _Header, text: str, marker: str) -> None:
        """What is no call of a function comes out as it was written."""
        name = header.recipient.removeprefix(_FUNCTIONS)
        try:
            if not header.recipient.startswith(_FUNCTIONS) and name not in self._names:
                raise Malformed("it is not addressed to a function")
            self._calls.append(Call(name, arguments_of(whole(text) if text.strip() else {})))
        except Malformed:
            self._content += header.text.removeprefix(f"{_START}{_ROLE}") + _MESSAGE + text + marker

    def _taken(self) -> Parsed:
        taken = Parsed(self._thinking, self._content, tuple(self._calls))
        self._thinking, self._content, self._calls = "", "", []
        return taken


class Harmony:
    """Its markers are always there, so its text is always parsed."""

    @property
    def markers(self) -> Sequence[str]:
        return (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS)

    def parser(self, wanted: Wanted) -> Parser | None:
        return HarmonyParser(wanted)

    def frame(self, name: str) -> tuple[str, str]:
        return f"{_CHANNEL}commentary to={_FUNCTIONS}{name} {_CONSTRAIN}json{_MESSAGE}", ""

    def lead(self, wanted: Wanted) -> str:
        return f'("{_CHANNEL}analysis{_MESSAGE}" thought "<|end|>{_START}assistant")?'

    def answer_lead(self, wanted: Wanted) -> str:
        in_message = _MESSAGE in wanted.prompt_end.rpartition(_START)[2]
        return "" if in_message else f'{self.lead(wanted)} "{_CHANNEL}final{_MESSAGE}"'


HARMONY = Harmony()
