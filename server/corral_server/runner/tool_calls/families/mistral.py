"""Mistral: ``[TOOL_CALLS]`` and a list of calls, or ``[TOOL_CALLS]name[ARGS]{...}`` for each call in newer models.

Both extend to the end of the generation. Thinking is between ``[THINK]`` and ``[/THINK]``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.tool_calls.calls import MalformedCall, ParsedCall
from corral_server.runner.tool_calls.json_calls import arguments_from_json, calls_from_json, decode_json
from corral_server.runner.tool_calls.sections import Section, SectionContent
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.thinking import THINK_TAGS
from corral_server.runner.tool_calls.tool import Tool

_OPEN = "[TOOL_CALLS]"
_NAMED = re.compile(r"\s*(?:\[TOOL_CALLS\])?\s*([\w.:-]+)\s*(?:\[CALL_ID\]\s*([\w-]+)\s*)?(?:\[ARGS\]\s*|(?=\{))")


def read_calls(body: str, _tools: Sequence[Tool]) -> SectionContent:
    if body.lstrip().startswith(("[{", "[ {", "[\n", "{")):
        value, end = decode_json(body)
        return SectionContent(calls_from_json(value), body[end:])
    calls, at = [], 0
    while found := _NAMED.match(body, at):
        try:
            value, end = decode_json(body, found.end())
            calls.append(ParsedCall(found[1], arguments_from_json(value), found[2] or ""))
        except MalformedCall:
            break
        at = end
    if not calls:
        raise MalformedCall("no call")
    return SectionContent(tuple(calls), body[at:])


_SECTIONS = (Section(_OPEN, "", read_calls),)
_MARKERS = ("[ARGS]", "[CALL_ID]")
_THINK = ("[THINK]", "[/THINK]")
_LIST = '[TOOL_CALLS][{"name": "NAME", "arguments": ARGUMENTS}]'
_NAMED_CALL = "[TOOL_CALLS]NAME[ARGS]ARGUMENTS"


def mistral(template: str) -> TaggedFormat:
    call = _NAMED_CALL if "[ARGS]" in template else _LIST
    return TaggedFormat(_SECTIONS, call, _THINK if _THINK[0] in template else THINK_TAGS, _MARKERS)
