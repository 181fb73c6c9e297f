"""Tool calls as JSON: an object with a name and arguments, or a list of such objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from corral_server.runner.tool_calls.calls import IncompleteCall, MalformedCall, ParsedCall
from corral_server.wire.go_json import replace_surrogates

_NAMES = ("name", "function", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "args")


def decode_json(text: str, start: int = 0) -> tuple[object, int]:
    """Return the JSON value at ``start``, after white space, and its end.

    Line breaks within strings are accepted, because models write them. Raises IncompleteCall if the text ends within
    the value, and MalformedCall.
    """
    while start < len(text) and text[start].isspace():
        start += 1
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        raise (IncompleteCall if cut else MalformedCall)(error.msg) from None
    except (ValueError, RecursionError) as error:
        raise MalformedCall(str(error)) from None
    return replace_surrogates(value), end


def parse_json(text: str) -> object:
    """Return the JSON value of the whole text. Raises IncompleteCall and MalformedCall."""
    value, end = decode_json(text)
    if text[end:].strip():
        raise MalformedCall("text after the value")
    return value


def calls_from_json(value: object) -> tuple[ParsedCall, ...]:
    """Return the calls of an object or a list of objects. Raises MalformedCall for other values."""
    if isinstance(value, list) and value:
        return tuple(_call(item) for item in value)
    return (_call(value),)


def arguments_from_json(value: object) -> Mapping[str, object]:
    """Return arguments, which some models write as a string of JSON. Raises MalformedCall unless they are an object."""
    if isinstance(value, str):
        value = parse_json(value)
    if not isinstance(value, dict):
        raise MalformedCall("the arguments are not an object")
    return value


def _call(value: object) -> ParsedCall:
    if not isinstance(value, dict):
        raise MalformedCall("a call is not an object")
    if isinstance(value.get("function"), dict):
        value = {**value, **value["function"]}
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), "")
    if not name:
        raise MalformedCall("a call without a name")
    arguments: object = next((value[key] for key in _ARGUMENTS if value.get(key) is not None), {})
    id = value.get("id", value.get("tool_call_id"))
    return ParsedCall(name, arguments_from_json(arguments), id if isinstance(id, str) else "")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)
