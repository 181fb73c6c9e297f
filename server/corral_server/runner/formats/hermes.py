"""Qwen, Hermes and many others: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, once for each call.

Now and then a model writes several calls between one pair of tags.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.formats.json_calls import calls_of, decode
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALL = '<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>'


def read(body: str, _tools: Sequence[Tool]) -> Body:
    value, at = decode(body)
    calls = calls_of(value)
    while body[at:].strip():
        value, at = decode(body, at)
        calls += calls_of(value)
    return Body(calls)


HERMES = Tagged((Section(OPEN, CLOSE, read),), CALL)
