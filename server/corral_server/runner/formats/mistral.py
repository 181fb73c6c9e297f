"""Mistral: ``[TOOL_CALLS]`` and a list of calls; newer models write ``[TOOL_CALLS]name[ARGS]{...}`` for each call.

Both go to the end of the generation. Thinking, where there is any, stands between ``[THINK]`` and ``[/THINK]``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.formats.calls import Call, Malformed
from corral_server.runner.formats.json_calls import arguments_of, calls_of, decode
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.thinking import TAGS
from corral_server.runner.tools import Tool

_OPEN = "[TOOL_CALLS]"
_NAMED = re.compile(r"\s*(?:\[TOOL_CALLS\])?\s*([\w.:-]+)\s*(?:\[CALL_ID\]\s*([\w-]+)\s*)?(?:\[ARGS\]\s*|(?=\{))")


def read(body: str, _tools: Sequence[Tool]) -> Body:
    if body.lstrip().startswith(("[{", "[ {", "[\n", "{")):
        value, end = decode(body)
        return Body(calls_of(value), body[end:])
    calls, at = [], 0
    while found := _NAMED.match(body, at):
        try:
            value, end = decode(body, found.end())
            calls.append(Call(found[1], arguments_of(value), found[2] or ""))
        except Malformed:
            break
        at = end
    if not calls:
        raise Malformed("there is no call")
    return Body(tuple(calls), body[at:])


_SECTIONS = (Section(_OPEN, "", read),)
_MARKERS = ("[ARGS]", "[CALL_ID]")
_THINK = ("[THINK]", "[/THINK]")
_LIST = '[TOOL_CALLS][{"name": "NAME", "arguments": ARGUMENTS}]'
_NAMED_CALL = "[TOOL_CALLS]NAME[ARGS]ARGUMENTS"


def mistral(template: str) -> Tagged:
    call = _NAMED_CALL if "[ARGS]" in template else _LIST
    return Tagged(_SECTIONS, call, _THINK if _THINK[0] in template else TAGS, _MARKERS)
