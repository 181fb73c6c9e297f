"""What Go's decoder says of a text that is no JSON: clients are shown it, and rely on its status alone.

Python's decoder says where the text went wrong, this what Go calls it there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_WHERE: Mapping[str, str] = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name": "looking for beginning of object key string",
    "Expecting ':'": "after object key",
    "Invalid control": "in string literal",
    "Illegal trailing": "looking for beginning of object key string",
}
"""Beginnings of what Python's decoder says."""

_LITERALS = ("true", "false", "null")
_HEX = frozenset("0123456789abcdefABCDEF")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_FAR = 1 << 16
"""Characters that are looked back at for the bracket that is open."""
_EOF = "unexpected EOF"


def syntax_error(text: str, error: json.JSONDecodeError) -> str:
    """The words for an error that Python's decoder found in ``text``."""
    at, said = error.pos, error.msg
    if at >= len(text.rstrip()) or said.startswith("Unterminated"):
        return _EOF
    if said.startswith("Invalid \\"):
        return _escape(text, at)
    if said.startswith("Expecting value"):
        return _value(text, at)
    if said.startswith("Expecting ','"):
        return _number(text, at) or _invalid(text, at, f"after {_element(text[max(0, at - _FAR) : at])}")
    return _invalid(text, at, next((words for start, words in _WHERE.items() if said.startswith(start)), "in JSON"))


def constant_error(name: str) -> str:
    """The words for what Python takes for a number and JSON does not know: ``NaN``, ``Infinity``, ``-Infinity``."""
    return _value(name, 0)


def quoted(character: str) -> str:
    return {"'": r"'\''", '"': "'\"'", "\\": r"'\\'"}.get(character) or repr(character)


def _invalid(text: str, at: int, where: str) -> str:
    """Go looks at bytes: of a character that is no ASCII it shows the first one."""
    if at >= len(text.rstrip()):
        return _EOF
    return f"invalid character {quoted(chr(text[at].encode('utf-8', 'replace')[0]))} {where}"


def _escape(text: str, at: int) -> str:
    """``at`` is the backslash, or the ``u`` after it."""
    if text[at] == "\\":
        return _invalid(text, at + 1, "in string escape code")
    wrong = next((place for place in range(at + 1, min(at + 5, len(text))) if text[place] not in _HEX), len(text))
    return _invalid(text, wrong, "in \\u hexadecimal character escape")


def _value(text: str, at: int) -> str:
    for word in _LITERALS:
        if text[at] == word[0]:
            same = next((n for n in range(1, len(word)) if text[at + n : at + n + 1] != word[n]), len(word))
            return _invalid(text, at + same, f"in literal {word} (expecting {quoted(word[same : same + 1])})")
    if text[at] == "-":
        return _invalid(text, at + 1, "in numeric literal")
    return _invalid(text, at, "looking for beginning of value")


def _number(text: str, at: int) -> str:
    """The words for a number that breaks off after its point or its ``e``; empty for anything else."""
    if not text[at - 1].isdecimal():
        return ""
    if text[at] == ".":
        return _invalid(text, at + 1, "after decimal point in numeric literal")
    if text[at] in "eE":
        signed = text[at + 1 : at + 2] in ("+", "-")
        return _invalid(text, at + 1 + signed, "in exponent of numeric literal")
    return ""


def _element(before: str) -> str:
    """What ended before the place of the error: an element of an array, or a pair of an object."""
    depth = 0
    for character in reversed(_STRING.sub("", before)):
        if character in "]}":
            depth += 1
        elif character in "[{":
            if depth == 0:
                return "array element" if character == "[" else "object key:value pair"
            depth -= 1
    return "object key:value pair"
