"""Calls as JSON: an object with a name and arguments, or a list of such objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from corral_server.runner.formats.calls import Call, Malformed, Unfinished
from corral_server.runner.requests import without_surrogates

_NAMES = ("name", "function", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "args")


def decode(text: str, start: int = 0) -> tuple[object, int]:
    """The JSON value at ``start``, after white space, and where it ends.

    Line breaks inside of texts are let through, as models write them. Raises Unfinished when the text ends within the
    value, and Malformed.
    """
    while start < len(text) and text[start].isspace():
        start += 1
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        raise (Unfinished if cut else Malformed)(error.msg) from None
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)) from None
    return without_surrogates(value), end


def whole(text: str) -> object:
    """The JSON value that the text is. Raises Unfinished and Malformed."""
    value, end = decode(text)
    if text[end:].strip():
        raise Malformed("there is more after the value")
    return value


def calls_of(value: object) -> tuple[Call, ...]:
    """Raises Malformed when the value is no call and no list of calls."""
    if isinstance(value, list) and value:
        return tuple(_call(item) for item in value)
    return (_call(value),)


def arguments_of(value: object) -> Mapping[str, object]:
    """Some models write the arguments as a text that holds JSON. Raises Malformed for anything but an object."""
    if isinstance(value, str):
        value = whole(value)
    if not isinstance(value, dict):
        raise Malformed("the arguments are no object")
    return value


def _call(value: object) -> Call:
    if not isinstance(value, dict):
        raise Malformed("a call is an object")
    if isinstance(value.get("function"), dict):
        value = {**value, **value["function"]}
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), "")
    if not name:
        raise Malformed("a call has a name")
    arguments: object = next((value[key] for key in _ARGUMENTS if value.get(key) is not None), {})
    id = value.get("id", value.get("tool_call_id"))
    return Call(name, arguments_of(arguments), id if isinstance(id, str) else "")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)
