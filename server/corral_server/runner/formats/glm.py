"""GLM: ``<tool_call>name`` and then ``<arg_key>key</arg_key><arg_value>value</arg_value>`` for each argument."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.formats import hermes
from corral_server.runner.formats.calls import Call, Malformed, Unfinished
from corral_server.runner.formats.qwen_coder import typed, value_schemas
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool

_NAME = re.compile(r"\s*([\w.:-]+)\s*(?=<arg_key>|$)")
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>\s*", re.DOTALL)


def read(body: str, tools: Sequence[Tool]) -> Body:
    if body.lstrip().startswith(("{", "[")):
        return hermes.read(body, tools)
    found = _NAME.match(body)
    if found is None:
        raise Malformed("the call has no name")
    name, at, values = found[1], found.end(), dict[str, object]()
    schemas = value_schemas(name, tools)
    while at < len(body):
        pair = _PAIR.match(body, at)
        if pair is None:
            raise (Unfinished if body[at:].startswith("<arg_key>") else Malformed)("the arguments do not end")
        values[pair[1].strip()] = typed(pair[2], schemas.get(pair[1].strip()))
        at = pair.end()
    return Body((Call(name, values),))


GLM = Tagged((Section(hermes.OPEN, hermes.CLOSE, read),), hermes.CALL)
