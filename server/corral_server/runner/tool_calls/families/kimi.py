"""Kimi K2: calls between special tokens. ``functions.NAME:INDEX`` is both the name and the id of a call."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.tool_calls.calls import IncompleteCall, ParsedCall
from corral_server.runner.tool_calls.json_calls import arguments_from_json, parse_json
from corral_server.runner.tool_calls.sections import Section, SectionContent, split_calls
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool

OPEN, _CLOSE = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_BEGIN, _ARGUMENTS, _END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_ID = re.compile(r"\s*((?:functions\.)?([\w.-]+?)(?::\d+)?)\s*")


def read_calls(body: str, _tools: Sequence[Tool]) -> SectionContent:
    return SectionContent(tuple(map(_call, split_calls(body, _BEGIN, _END))))


def _call(text: str) -> ParsedCall:
    head, separator, arguments = text.partition(_ARGUMENTS)
    found = _ID.fullmatch(head)
    if not separator or found is None:
        raise IncompleteCall("no arguments")
    return ParsedCall(found[2], arguments_from_json(parse_json(arguments)), found[1])


_CALL = f"{OPEN}{_BEGIN}functions.NAME:0{_ARGUMENTS}ARGUMENTS{_END}{_CLOSE}"
KIMI = TaggedFormat((Section(OPEN, _CLOSE, read_calls, _END),), _CALL, extra_markers=(_BEGIN, _ARGUMENTS, _END))
