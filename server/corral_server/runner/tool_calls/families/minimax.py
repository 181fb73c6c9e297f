"""MiniMax M2: ``<invoke name="f"><parameter name="k">v</parameter></invoke>`` within ``<minimax:tool_call>``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.tool_calls.calls import IncompleteCall, MalformedCall, ParsedCall
from corral_server.runner.tool_calls.families import hermes
from corral_server.runner.tool_calls.families.qwen_coder import argument_schemas, read_parameters
from corral_server.runner.tool_calls.sections import Section, SectionContent
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool

OPEN, _CLOSE, _END = "<minimax:tool_call>", "</minimax:tool_call>", "</invoke>"
_INVOKE = re.compile(r'\s*<invoke name="([^"\n]+)">(.*?)</invoke>\s*', re.DOTALL)
_PARAMETER = re.compile(r'\s*<parameter name="([^"\n]+)">(.*?)</parameter>\s*', re.DOTALL)


def read_calls(body: str, tools: Sequence[Tool]) -> SectionContent:
    if body.lstrip().startswith("{"):
        return hermes.read_calls(body, tools)
    if not body.rstrip().endswith(_END):
        raise IncompleteCall("unclosed call")
    calls, at = [], 0
    while at < len(body):
        found = _INVOKE.match(body, at)
        if found is None:
            raise MalformedCall("text between the calls")
        calls.append(ParsedCall(found[1], read_parameters(found[2], _PARAMETER, argument_schemas(found[1], tools))))
        at = found.end()
    return SectionContent(tuple(calls))


MINIMAX = TaggedFormat(
    (Section(OPEN, _CLOSE, read_calls, _END),), f'{OPEN}{{"name": "NAME", "arguments": ARGUMENTS}}{_CLOSE}'
)
