"""MiniMax M2: ``<invoke name="f"><parameter name="k">v</parameter></invoke>`` inside of ``<minimax:tool_call>``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.formats import hermes
from corral_server.runner.formats.calls import Call, Malformed, Unfinished
from corral_server.runner.formats.qwen_coder import typed, value_schemas
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool

OPEN, _CLOSE, _END = "<minimax:tool_call>", "</minimax:tool_call>", "</invoke>"
_INVOKE = re.compile(r'\s*<invoke name="([^"\n]+)">(.*?)</invoke>\s*', re.DOTALL)
_PARAMETER = re.compile(r'\s*<parameter name="([^"\n]+)">(.*?)</parameter>\s*', re.DOTALL)


def read(body: str, tools: Sequence[Tool]) -> Body:
    if body.lstrip().startswith("{"):
        return hermes.read(body, tools)
    if not body.rstrip().endswith(_END):
        raise Unfinished("the call does not end")
    calls, at = [], 0
    while at < len(body):
        found = _INVOKE.match(body, at)
        if found is None:
            raise Malformed("there is something between the calls")
        calls.append(Call(found[1], _arguments(found[1], found[2], tools)))
        at = found.end()
    return Body(tuple(calls))


def _arguments(name: str, text: str, tools: Sequence[Tool]) -> dict[str, object]:
    schemas, values, at = value_schemas(name, tools), dict[str, object](), 0
    while text[at:].strip():
        found = _PARAMETER.match(text, at)
        if found is None:
            raise Malformed("there is something between the parameters")
        values[found[1]] = typed(found[2], schemas.get(found[1]))
        at = found.end()
    return values


MINIMAX = Tagged((Section(OPEN, _CLOSE, read, _END),), f'{OPEN}{{"name": "NAME", "arguments": ARGUMENTS}}{_CLOSE}')
