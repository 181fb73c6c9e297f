"""Formats of smaller families, which differ from the others only in their markers."""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.tool_calls.families import hermes
from corral_server.runner.tool_calls.families.llama3 import BareJsonFormat
from corral_server.runner.tool_calls.json_calls import calls_from_json, decode_json
from corral_server.runner.tool_calls.sections import Section, SectionContent
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool


def read_first_value(body: str, _tools: Sequence[Tool]) -> SectionContent:
    """Read a JSON value and return the text after it."""
    value, end = decode_json(body)
    return SectionContent(calls_from_json(value), body[end:])


PHI4 = TaggedFormat(
    (Section("<|tool_call|>", "<|/tool_call|>", hermes.read_calls),),
    '<|tool_call|>[{"name": "NAME", "arguments": ARGUMENTS}]<|/tool_call|>',
)
GRANITE = TaggedFormat(
    (Section("<|tool_call|>", "", read_first_value),), '<|tool_call|>[{"name": "NAME", "arguments": ARGUMENTS}]'
)
COMMAND = TaggedFormat(
    (Section("<|START_ACTION|>", "<|END_ACTION|>", hermes.read_calls),),
    '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "NAME", "parameters": ARGUMENTS}]<|END_ACTION|>',
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
NEMOTRON = TaggedFormat(
    (Section("<TOOLCALL>", "</TOOLCALL>", hermes.read_calls),),
    '<TOOLCALL>[{"name": "NAME", "arguments": ARGUMENTS}]</TOOLCALL>',
)
JAMBA = TaggedFormat(
    (Section("<tool_calls>", "</tool_calls>", hermes.read_calls),),
    '<tool_calls>[{"name": "NAME", "arguments": ARGUMENTS}]</tool_calls>',
)
INTERN = TaggedFormat(
    (Section("<|action_start|><|plugin|>", "<|action_end|>", hermes.read_calls),),
    '<|action_start|><|plugin|>{"name": "NAME", "parameters": ARGUMENTS}<|action_end|>',
    extra_markers=("<|action_start|>", "<|plugin|>"),
)
GENERIC = BareJsonFormat((Section(hermes.OPEN, hermes.CLOSE, hermes.read_calls),), hermes.CALL)
