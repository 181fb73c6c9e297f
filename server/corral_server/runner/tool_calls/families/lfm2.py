"""LFM2: ``<|tool_call_start|>[name(key="value"), ...]<|tool_call_end|>``, calls in Python syntax.

The text is parsed and never evaluated. A call has a name and keyword arguments whose values are literals.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Sequence

from corral_server.runner.tool_calls.calls import IncompleteCall, MalformedCall, ParsedCall
from corral_server.runner.tool_calls.families import hermes
from corral_server.runner.tool_calls.json_calls import arguments_from_json, parse_json
from corral_server.runner.tool_calls.sections import Section, SectionContent
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool

OPEN, _CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"
_MAX_TEXT = 100_000


def read_calls(body: str, tools: Sequence[Tool]) -> SectionContent:
    if body.lstrip().startswith(("{", "[{")):
        return hermes.read_calls(body, tools)
    if not body.rstrip().endswith(("]", ")")):
        raise IncompleteCall("unclosed calls")
    if len(body) > _MAX_TEXT:
        raise MalformedCall("the calls are too long")
    try:
        with warnings.catch_warnings(action="ignore"):  # SyntaxWarning about the model's text
            tree = ast.parse(body.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise MalformedCall(str(error)) from None
    return SectionContent(tuple(_call(item) for item in (tree.elts if isinstance(tree, ast.List) else [tree])))


def _call(node: ast.expr) -> ParsedCall:
    if not isinstance(node, ast.Call) or node.args:
        raise MalformedCall("a call without a name and keywords")
    try:
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        plain = arguments_from_json(parse_json(json.dumps(values)))
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise MalformedCall(str(error)) from None
    if None in values:
        raise MalformedCall("a call without a name and keywords")
    return ParsedCall(ast.unparse(node.func), plain)


LFM2 = TaggedFormat((Section(OPEN, _CLOSE, read_calls),), f'{OPEN}[{{"name": "NAME", "arguments": ARGUMENTS}}]{_CLOSE}')
