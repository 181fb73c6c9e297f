"""Ollama's rules for JSON in requests: those of Go's ``encoding/json``, over Python's decoder.

- Only the first value of a text counts.
- Numbers that JSON does not have (``NaN``, ``Infinity``) and floats beyond the range of float64 are errors.
- Lone surrogates become U+FFFD.
- Errors have the texts of Go's decoder, which clients see: Python's decoder finds the position of a syntax error, and
  ``syntax_error`` describes it as Go does (``encoding/json/scanner.go``).

- Of equal keys in one object the last one that is not null wins, and null counts as unset: ``STRICT_DECODER`` keeps
  that one in its place. Keys of known fields are equal without regard to case (``fold_key``); the callers fold the
  objects that they read (``fold_fields``), because keys of schemas and options keep their case.

Gateway and runner both read the model's name by these rules, so a name that the gateway checked is the one that the
runner serves.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from corral_server.wire.errors import ApiError

_GO_CONTEXTS: Mapping[str, str] = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name": "looking for beginning of object key string",
    "Expecting ':'": "after object key",
    "Invalid control": "in string literal",
    "Illegal trailing": "looking for beginning of object key string",
}
"""Beginnings of the messages of Python's decoder, and Go's description of the context."""

_LITERALS = ("true", "false", "null")
_HEX = frozenset("0123456789abcdefABCDEF")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SEARCH_LIMIT = 1 << 16
"""Number of characters before an error that are searched for the innermost open bracket."""
_EOF = "unexpected EOF"
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS: Mapping[type, str] = {
    str: "string",
    bool: "bool",
    list: "array",
    dict: "object",
    int: "number",
    float: "number",
}


def decode_first_value(text: str, decoder: json.JSONDecoder, *, empty: str) -> object:
    """Decode the first JSON value of a text.

    ``decoder`` needs ``parse_constant=reject_constant``. Raises ApiError 400, with the text ``empty`` for a text that
    has no value.
    """
    found = _WHITE_SPACE.match(text)
    start = found.end() if found else 0
    if start == len(text):
        raise ApiError(400, empty)
    try:
        value: object = decoder.raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        raise ApiError(400, syntax_error(text, error)) from None
    except RecursionError:
        raise ApiError(400, "exceeded max depth") from None
    except ValueError:  # Python refuses integers with thousands of digits
        raise ApiError(400, "json: cannot unmarshal number into Go value of type float64") from None
    return value


def reject_constant(name: str) -> object:
    """Raise ApiError 400 for ``NaN``, ``Infinity`` or ``-Infinity``; for ``parse_constant`` of a decoder."""
    raise ApiError(400, constant_error(name))


def parse_finite_float(text: str) -> float:
    """Parse a float. Raises ApiError 400 beyond the range of float64; for ``parse_float`` of a decoder."""
    value = float(text)
    if math.isinf(value):
        raise ApiError(400, f"json: cannot unmarshal number {text[:32]} into Go value of type float64")
    return value


def fold_key(key: str) -> str:
    """Return the form in which Go compares a key with a field's name (``foldName`` in ``encoding/json/fold.go``).

    Fields have ASCII names. Beside the letters' cases only the Kelvin sign and the long s fold to ASCII.
    """
    return key.lower().replace("\u017f", "s")


def is_folded(data: Mapping[str, object]) -> bool:
    """Return whether ``fold_fields`` would change nothing: keys are ASCII in lower case, and no value is null."""
    for value in data.values():
        if value is None:
            return False
    keys = "".join(data)
    return keys.isascii() and keys == keys.lower()


def fold_fields(data: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of an object from ``object_from_pairs`` by folded key, without those that are null."""
    return {fold_key(key): value for key, value in data.items() if value is not None}


def object_from_pairs(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Build an object in which each key has its last value that is not null, in that value's place.

    So ``fold_fields`` finds the last value of keys that differ by case. For ``object_pairs_hook`` of a decoder.
    """
    data = dict(pairs)
    if len(data) == len(pairs):
        return data
    data = {}
    for key, value in pairs:
        if value is not None:
            data.pop(key, None)
            data[key] = value
        elif key not in data:
            data[key] = None
    return data


STRICT_DECODER: Final = json.JSONDecoder(
    parse_constant=reject_constant, parse_float=parse_finite_float, object_pairs_hook=object_from_pairs
)


def json_kind(value: object) -> str:
    """Return the name of a JSON value's kind in the errors of Go's decoder."""
    return _KINDS.get(type(value), "null")


def may_have_surrogates(text: str) -> bool:
    """Return whether a JSON text has an escape of a surrogate, so that its strings may have lone ones."""
    return _ESCAPED_SURROGATE.search(text) is not None


def replace_surrogates(value: object) -> object:
    """Replace lone surrogates by U+FFFD, as Go's decoder does; they could not be encoded as UTF-8 in a response."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {str(replace_surrogates(key)): replace_surrogates(item) for key, item in value.items()}
    return value


def syntax_error(text: str, error: json.JSONDecodeError) -> str:
    """Return Go's text for a syntax error that Python's decoder found in ``text``."""
    at, message = error.pos, error.msg
    if at >= len(text.rstrip()) or message.startswith("Unterminated"):
        return _EOF
    if message.startswith("Invalid \\"):
        return _escape_error(text, at)
    if message.startswith("Expecting value"):
        return _value_error(text, at)
    if message.startswith("Expecting ','"):
        return _number_error(text, at) or _invalid_character(
            text, at, f"after {_preceding_element(text[max(0, at - _SEARCH_LIMIT) : at])}"
        )
    return _invalid_character(
        text, at, next((words for start, words in _GO_CONTEXTS.items() if message.startswith(start)), "in JSON")
    )


def constant_error(name: str) -> str:
    """Return Go's text for a constant that only Python's decoder accepts: ``NaN``, ``Infinity``, ``-Infinity``."""
    return _value_error(name, 0)


def quoted(character: str) -> str:
    return {"'": r"'\''", '"': "'\"'", "\\": r"'\\'"}.get(character) or repr(character)


def _invalid_character(text: str, at: int, where: str) -> str:
    """Return the text for an invalid character. Of one outside ASCII, Go's decoder shows the first byte."""
    if at >= len(text.rstrip()):
        return _EOF
    return f"invalid character {quoted(chr(text[at].encode('utf-8', 'replace')[0]))} {where}"


def _escape_error(text: str, at: int) -> str:
    """Return the text for an invalid escape; ``at`` is the position of the backslash, or of the ``u`` after it."""
    if text[at] == "\\":
        return _invalid_character(text, at + 1, "in string escape code")
    wrong = next((index for index in range(at + 1, min(at + 5, len(text))) if text[index] not in _HEX), len(text))
    return _invalid_character(text, wrong, "in \\u hexadecimal character escape")


def _value_error(text: str, at: int) -> str:
    for word in _LITERALS:
        if text[at] == word[0]:
            same = next((n for n in range(1, len(word)) if text[at + n : at + n + 1] != word[n]), len(word))
            return _invalid_character(text, at + same, f"in literal {word} (expecting {quoted(word[same : same + 1])})")
    if text[at] == "-":
        return _invalid_character(text, at + 1, "in numeric literal")
    return _invalid_character(text, at, "looking for beginning of value")


def _number_error(text: str, at: int) -> str:
    """Return the text for a number that ends after its point or its ``e``; empty for any other error."""
    if not text[at - 1].isdecimal():
        return ""
    if text[at] == ".":
        return _invalid_character(text, at + 1, "after decimal point in numeric literal")
    if text[at] in "eE":
        signed = text[at + 1 : at + 2] in ("+", "-")
        return _invalid_character(text, at + 1 + signed, "in exponent of numeric literal")
    return ""


def _preceding_element(before: str) -> str:
    """Return what precedes the error: an element of an array, or a pair of an object."""
    depth = 0
    for character in reversed(_STRING.sub("", before)):
        if character in "]}":
            depth += 1
        elif character in "[{":
            if depth == 0:
                return "array element" if character == "[" else "object key:value pair"
            depth -= 1
    return "object key:value pair"
