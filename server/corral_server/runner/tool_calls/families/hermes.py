"""Qwen, Hermes and many other models: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` for each call.

Models sometimes write several calls between one pair of tags.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.tool_calls.json_calls import calls_from_json, decode_json
from corral_server.runner.tool_calls.sections import Section, SectionContent
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALL = '<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>'


def read_calls(body: str, _tools: Sequence[Tool]) -> SectionContent:
    value, at = decode_json(body)
    calls = calls_from_json(value)
    while body[at:].strip():
        value, at = decode_json(body, at)
        calls += calls_from_json(value)
    return SectionContent(calls)


HERMES = TaggedFormat((Section(OPEN, CLOSE, read_calls),), CALL)
