"""Smaller families that differ from the others in their markers alone."""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.formats import hermes
from corral_server.runner.formats.json_calls import calls_of, decode
from corral_server.runner.formats.llama3 import Bare
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool


def read_first(body: str, _tools: Sequence[Tool]) -> Body:
    """A JSON value, and text after it."""
    value, end = decode(body)
    return Body(calls_of(value), body[end:])


PHI4 = Tagged(
    (Section("<|tool_call|>", "<|/tool_call|>", hermes.read),),
    '<|tool_call|>[{"name": "NAME", "arguments": ARGUMENTS}]<|/tool_call|>',
)
GRANITE = Tagged((Section("<|tool_call|>", "", read_first),), '<|tool_call|>[{"name": "NAME", "arguments": ARGUMENTS}]')
COMMAND = Tagged(
    (Section("<|START_ACTION|>", "<|END_ACTION|>", hermes.read),),
    '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "NAME", "parameters": ARGUMENTS}]<|END_ACTION|>',
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
NEMOTRON = Tagged(
    (Section("<TOOLCALL>", "</TOOLCALL>", hermes.read),),
    '<TOOLCALL>[{"name": "NAME", "arguments": ARGUMENTS}]</TOOLCALL>',
)
JAMBA = Tagged(
    (Section("<tool_calls>", "</tool_calls>", hermes.read),),
    '<tool_calls>[{"name": "NAME", "arguments": ARGUMENTS}]</tool_calls>',
)
INTERN = Tagged(
    (Section("<|action_start|><|plugin|>", "<|action_end|>", hermes.read),),
    '<|action_start|><|plugin|>{"name": "NAME", "parameters": ARGUMENTS}<|action_end|>',
    more_markers=("<|action_start|>", "<|plugin|>"),
)
GENERIC = Bare((Section(hermes.OPEN, hermes.CLOSE, hermes.read),), hermes.CALL)
