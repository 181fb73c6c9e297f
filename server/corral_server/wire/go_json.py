"""What Go's decoder says of a text that is no JSON: clients are shown it, and rely on its status alone."""

from __future__ import annotations

import json
from collections.abc import Mapping

_WHERE: Mapping[str, str] = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name": "looking for beginning of object key string",
    "Expecting ':'": "after object key",
    "Expecting ','": "after object key:value pair or array element",
    "Invalid \\": "in string escape code",
    "Invalid control": "in string literal",
    "Illegal trailing": "looking for beginning of object key string",
}
"""Beginnings of what Python's decoder says."""


def syntax_error(text: str, error: json.JSONDecodeError) -> str:
    """The words for an error that Python's decoder found in ``text``."""
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    where = next((words for start, words in _WHERE.items() if error.msg.startswith(start)), "in JSON")
    return f"invalid character {quoted(text[error.pos])} {where}"


def quoted(character: str) -> str:
    return {"'": r"'\''", '"': "'\"'", "\\": r"'\\'"}.get(character) or repr(character)
