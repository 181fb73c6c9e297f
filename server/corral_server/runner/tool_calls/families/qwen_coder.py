"""Qwen3-Coder: ``<tool_call><function=name><parameter=key>value</parameter>...</function></tool_call>``.

Values are plain text; the tool's schema gives their types. The models sometimes omit the outer tag. Functionary writes
``<function=name>{...}</function>``; Seed has an outer tag of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from corral_server.runner.tool_calls.calls import IncompleteCall, MalformedCall, ParsedCall
from corral_server.runner.tool_calls.families import hermes
from corral_server.runner.tool_calls.json_calls import arguments_from_json, parse_json
from corral_server.runner.tool_calls.sections import Section, SectionContent
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool, tool_name, tool_parameters

_OPEN, _CLOSE = "<function=", "</function>"
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)


def read_calls(body: str, tools: Sequence[Tool]) -> SectionContent:
    if not body.lstrip().startswith(_OPEN):
        return hermes.read_calls(body, tools)
    if not body.rstrip().endswith(_CLOSE):
        raise IncompleteCall("unclosed function")
    calls, at = [], 0
    while at < len(body):
        found = _FUNCTION.match(body, at)
        if found is None:
            raise MalformedCall("text between the functions")
        calls.append(ParsedCall(found[1].strip(), _arguments(found[1].strip(), found[2], tools)))
        at = found.end()
    return SectionContent(tuple(calls))


def _bare(body: str, tools: Sequence[Tool]) -> SectionContent:
    return read_calls(f"{_OPEN}{body}{_CLOSE}", tools)


def _arguments(name: str, text: str, tools: Sequence[Tool]) -> dict[str, object]:
    if text.lstrip().startswith("{"):
        return {**arguments_from_json(parse_json(text))}
    return read_parameters(text, _PARAMETER, argument_schemas(name, tools))


def read_parameters(text: str, pattern: re.Pattern[str], schemas: Mapping[str, object]) -> dict[str, object]:
    """Read consecutive parameters; ``pattern`` has a group for the name and one for the value.

    Raises MalformedCall for text between them.
    """
    values: dict[str, object] = {}
    at = 0
    while text[at:].strip():
        found = pattern.match(text, at)
        if found is None:
            raise MalformedCall("text between the parameters")
        key = found[1].strip()
        values[key] = typed_value(found[2], schemas.get(key))
        at = found.end()
    return values


def argument_schemas(name: str, tools: Sequence[Tool]) -> Mapping[str, object]:
    """Return the JSON Schema of each argument of a tool."""
    tool = next((tool for tool in tools if tool_name(tool) == name), None)
    properties = tool_parameters(tool).get("properties") if tool else None
    return properties if isinstance(properties, Mapping) else {}


def typed_value(text: str, schema: object) -> object:
    """Decode a plain-text value as JSON, unless its schema is a string or it is not JSON."""
    if isinstance(schema, Mapping) and schema.get("type") == "string":
        return text
    try:
        return parse_json(text)
    except MalformedCall:
        return text


_SECTIONS = (
    Section(hermes.OPEN, hermes.CLOSE, read_calls, _CLOSE),
    Section("<seed:tool_call>", "</seed:tool_call>", read_calls, _CLOSE),
    Section(_OPEN, _CLOSE, _bare),
)
QWEN_CODER = TaggedFormat(_SECTIONS, hermes.CALL)
