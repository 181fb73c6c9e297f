"""LFM2: ``<|tool_call_start|>[name(key="value"), ...]<|tool_call_end|>``, calls as Python writes them.

The text is only parsed, never run: a call is a name with keywords whose values are constants, lists and mappings.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Sequence

from corral_server.runner.formats import hermes
from corral_server.runner.formats.calls import Call, Malformed, Unfinished
from corral_server.runner.formats.json_calls import arguments_of, whole
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool

OPEN, _CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"
_MAX_TEXT = 100_000


def read(body: str, tools: Sequence[Tool]) -> Body:
    if body.lstrip().startswith(("{", "[{")):
        return hermes.read(body, tools)
    if not body.rstrip().endswith(("]", ")")):
        raise Unfinished("the calls do not end")
    if len(body) > _MAX_TEXT:
        raise Malformed("the calls are too long")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what Python finds odd in the text
            tree = ast.parse(body.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Malformed(str(error)) from None
    return Body(tuple(_call(item) for item in (tree.elts if isinstance(tree, ast.List) else [tree])))


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise Malformed("a call has a name and keywords")
    try:
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        plain = arguments_of(whole(json.dumps(values)))
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise Malformed(str(error)) from None
    if None in values:
        raise Malformed("a call has a name and keywords")
    return Call(ast.unparse(node.func), plain)


LFM2 = Tagged((Section(OPEN, _CLOSE, read),), f'{OPEN}[{{"name": "NAME", "arguments": ARGUMENTS}}]{_CLOSE}')
