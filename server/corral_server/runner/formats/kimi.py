"""Kimi K2: calls between special tokens, each named ``functions.name:index``, which is its id as well."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.formats.calls import Call, Malformed, Unfinished
from corral_server.runner.formats.json_calls import arguments_of, whole
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool

OPEN, _CLOSE = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_BEGIN, _ARGUMENTS, _END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_ID = re.compile(r"\s*((?:functions\.)?([\w.-]+?)(?::\d+)?)\s*")


def read(body: str, _tools: Sequence[Tool]) -> Body:
    before, *parts = body.split(_BEGIN)
    if before.strip():
        raise Malformed("there is something before the first call")
    if not parts:
        raise Unfinished("there is no call")
    return Body(tuple(_call(part.rstrip().removesuffix(_END)) for part in parts))


def _call(text: str) -> Call:
    head, separator, arguments = text.partition(_ARGUMENTS)
    found = _ID.fullmatch(head)
    if not separator or found is None:
        raise Unfinished("the call has no arguments")
    return Call(found[2], arguments_of(whole(arguments)), found[1])


_CALL = f"{OPEN}{_BEGIN}functions.NAME:0{_ARGUMENTS}ARGUMENTS{_END}{_CLOSE}"
KIMI = Tagged((Section(OPEN, _CLOSE, read, _END),), _CALL, more_markers=(_BEGIN, _ARGUMENTS, _END))
