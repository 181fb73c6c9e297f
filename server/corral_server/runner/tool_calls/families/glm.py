"""GLM 4.5: ``<tool_call>name`` and ``<arg_key>key</arg_key><arg_value>value</arg_value>`` for each argument."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.tool_calls.calls import IncompleteCall, MalformedCall, ParsedCall
from corral_server.runner.tool_calls.families import hermes
from corral_server.runner.tool_calls.families.qwen_coder import argument_schemas, typed_value
from corral_server.runner.tool_calls.sections import Section, SectionContent
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool

_NAME = re.compile(r"\s*([\w.:-]+)\s*(?=<arg_key>|$)")
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*", re.DOTALL)


def read_calls(body: str, tools: Sequence[Tool]) -> SectionContent:
    if body.lstrip().startswith(("{", "[")):
        return hermes.read_calls(body, tools)
    found = _NAME.match(body)
    if found is None:
        raise MalformedCall("no name")
    name, at, values = found[1], found.end(), dict[str, object]()
    schemas = argument_schemas(name, tools)
    while at < len(body):
        pair = _PAIR.match(body, at)
        if pair is None:
            raise (IncompleteCall if body[at:].startswith("<arg_key>") else MalformedCall)("unclosed arguments")
        values[pair[1].strip()] = typed_value(pair[2], schemas.get(pair[1].strip()))
        at = pair.end()
    return SectionContent((ParsedCall(name, values),))


GLM = TaggedFormat((Section(hermes.OPEN, hermes.CLOSE, read_calls),), hermes.CALL)
