"""DeepSeek: calls between special tokens, with the arguments in a fenced block (R1, V3) or bare (V3.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corral_server.runner.formats.calls import Call, Malformed, Unfinished
from corral_server.runner.formats.json_calls import arguments_of, whole
from corral_server.runner.formats.sections import Body, Section
from corral_server.runner.formats.tagged import Tagged
from corral_server.runner.tools import Tool


def _token(words: str) -> str:
    """The tokens are written with full-width bars and with blocks between the words."""
    return f"<\uff5c{words.replace(' ', chr(0x2581))}\uff5c>"


OPEN, CLOSE = _token("tool calls begin"), _token("tool calls end")
_BEGIN, _SEPARATOR, _END = _token("tool call begin"), _token("tool sep"), _token("tool call end")
_FENCED = re.compile(r"\s*([^\s`]+)\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


def read(body: str, _tools: Sequence[Tool]) -> Body:
    parts = body.split(_BEGIN)
    if parts[0].strip():
        raise Malformed("there is something before the first call")
    if len(parts) < 2:
        raise Unfinished("there is no call")
    return Body(tuple(_call(part.rstrip().removesuffix(_END)) for part in parts[1:]))


def _call(text: str) -> Call:
    kind, separator, rest = text.partition(_SEPARATOR)
    if not separator:
        raise Unfinished("the call has no arguments")
    if kind.strip() == "function" and (found := _FENCED.fullmatch(rest)):
        return Call(found[1], arguments_of(whole(found[2])))
    return Call(kind.strip(), arguments_of(whole(rest)))


_FENCED_CALL = f"{OPEN}{_BEGIN}function{_SEPARATOR}NAME\n```json\nARGUMENTS\n```{_END}{CLOSE}"
_BARE_CALL = f"{OPEN}{_BEGIN}NAME{_SEPARATOR}ARGUMENTS{_END}{CLOSE}"


def deepseek(template: str) -> Tagged:
    call = _FENCED_CALL if "```json" in template else _BARE_CALL
    return Tagged((Section(OPEN, CLOSE, read, _END),), call, more_markers=(_BEGIN, _SEPARATOR, _END))
