"""DeepSeek R1, V3 and V3.1: calls between special tokens.

The arguments are in a fenced JSON block (R1, V3) or bare (V3.1), as in the chat templates of these models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.tool_calls.calls import IncompleteCall, ParsedCall
from corral_server.runner.tool_calls.json_calls import arguments_from_json, parse_json
from corral_server.runner.tool_calls.sections import Section, SectionContent, split_calls
from corral_server.runner.tool_calls.tagged import TaggedFormat
from corral_server.runner.tool_calls.tool import Tool


def _token(words: str) -> str:
    """Return a special token: DeepSeek writes them with full-width bars, and with block characters between words."""
    return f"<\uff5c{words.replace(' ', chr(0x2581))}\uff5c>"


OPEN, CLOSE = _token("tool calls begin"), _token("tool calls end")
_BEGIN, _SEPARATOR, _END = _token("tool call begin"), _token("tool sep"), _token("tool call end")
_FENCED = re.compile(r"\s*([^\s`]+)\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


def read_calls(body: str, _tools: Sequence[Tool]) -> SectionContent:
    return SectionContent(tuple(map(_call, split_calls(body, _BEGIN, _END))))


def _call(text: str) -> ParsedCall:
    kind, separator, rest = text.partition(_SEPARATOR)
    if not separator:
        raise IncompleteCall("no arguments")
    if kind.strip() == "function" and (found := _FENCED.fullmatch(rest)):
        return ParsedCall(found[1], arguments_from_json(parse_json(found[2])))
    return ParsedCall(kind.strip(), arguments_from_json(parse_json(rest)))


_FENCED_CALL = f"{OPEN}{_BEGIN}function{_SEPARATOR}NAME\n```json\nARGUMENTS\n```{_END}{CLOSE}"
_BARE_CALL = f"{OPEN}{_BEGIN}NAME{_SEPARATOR}ARGUMENTS{_END}{CLOSE}"


def deepseek(template: str) -> TaggedFormat:
    call = _FENCED_CALL if "```json" in template else _BARE_CALL
    return TaggedFormat((Section(OPEN, CLOSE, read_calls, _END),), call, extra_markers=(_BEGIN, _SEPARATOR, _END))
