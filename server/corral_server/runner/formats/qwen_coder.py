"""Qwen3-Coder: ``<tool_call><function=name><parameter=key>value</parameter>...</function></tool_call>``.

The values are plain text; the tool's schema says what they are. The models leave the outer tag out now and then.
Functionary writes ``<function=name>{...}</function>``, Seed has an outer tag of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from corral_server.runner.formats import hermes
from corral_server.runner.formats.calls import Call, Malformed, Unfinished
from corral_server.runner.formats.json_calls import arguments_of, whole
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool, name_of, parameters_of

_OPEN, _CLOSE = "<function=", "</function>"
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)


def read(body: str, tools: Sequence[Tool]) -> Body:
    if not body.lstrip().startswith(_OPEN):
        return hermes.read(body, tools)
    if not body.rstrip().endswith(_CLOSE):
        raise Unfinished("the function does not end")
    calls, at = [], 0
    while at < len(body):
        found = _FUNCTION.match(body, at)
        if found is None:
            raise Malformed("there is something between the functions")
        calls.append(Call(found[1].strip(), _arguments(found[1].strip(), found[2], tools)))
        at = found.end()
    return Body(tuple(calls))


def _bare(body: str, tools: Sequence[Tool]) -> Body:
    return read(f"{_OPEN}{body}{_CLOSE}", tools)


def _arguments(name: str, text: str, tools: Sequence[Tool]) -> dict[str, object]:
    if text.lstrip().startswith("{"):
        return {**arguments_of(whole(text))}
    schemas = value_schemas(name, tools)
    values: dict[str, object] = {}
    at = 0
    while text[at:].strip():
        found = _PARAMETER.match(text, at)
        if found is None:
            raise Malformed("there is something between the parameters")
        key = found[1].strip()
        values[key] = typed(found[2], schemas.get(key))
        at = found.end()
    return values


def value_schemas(name: str, tools: Sequence[Tool]) -> Mapping[str, object]:
    """The schema of each argument of this tool."""
    tool = next((tool for tool in tools if name_of(tool) == name), None)
    properties = parameters_of(tool).get("properties") if tool else None
    return properties if isinstance(properties, Mapping) else {}


def typed(text: str, schema: object) -> object:
    """A value that was written as plain text: JSON, unless it is to be a text or is no JSON."""
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return text
    try:
        return whole(text)
    except Malformed:
        return text


_SECTIONS = (
    Section(hermes.OPEN, hermes.CLOSE, read, _CLOSE),
    Section("<seed:tool_call>", "</seed:tool_call>", read, _CLOSE),
    Section(_OPEN, _CLOSE, _bare),
)
QWEN_CODER = Tagged(_SECTIONS, hermes.CALL)
