"""Request bodies as Ollama reads them.

The Content-Type is ignored, only the first JSON value counts, keys are compared without case, ``null`` is unset and
unknown keys are ignored. Everything that is wrong is an ``ApiError`` 400 with the text of Go's decoder, so nothing that
a client sends reaches the engine with another type than the code expects.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import NoReturn

from starlette.requests import Request

from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import constant_error, syntax_error

MISSING_BODY = "missing request body"
MISSING_BODY_OPENAI = "EOF"

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_GO_NAMES = {str: "string", bool: "bool", list: "array", dict: "object", int: "number", float: "number"}
_GO_TYPES: Mapping[type, str] = {
    str: "string",
    bool: "bool",
    int: "float64",
    float: "float64",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request body; the gateway has a limit of its own."""


async def read_body(request: Request) -> bytes:
    """Raises ApiError 413 for a body beyond the limit."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise ApiError(413, f"request body too large: at most {MAX_BODY} bytes are allowed")
        parts.append(part)
    return b"".join(parts)


def parse_body(body: bytes, *, kind: str, package: str = "api", missing: str = MISSING_BODY) -> Fields:
    """The fields of the first JSON value; ``kind`` is the request's type in a Go ``package``, for the error texts."""
    text = body.decode("utf-8", "replace")
    value = _first_value(text, missing)
    if not isinstance(value, dict):
        raise ApiError(400, f"json: cannot unmarshal {_go_name(value)} into Go value of type {package}.{kind}")
    if _ESCAPED_SURROGATE.search(text):
        value = {key: without_surrogates(item) for key, item in value.items()}
    return Fields(value, kind, package=package)


class Fields:
    """One JSON object whose fields are read by lower-case name and checked type; unset and null give the default."""

    def __init__(self, data: Mapping[str, object], kind: str, *, package: str = "api") -> None:
        self._package = package
        self._data = {key.lower(): value for key, value in data.items() if value is not None}
        self._kind = kind

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def raw(self, name: str) -> object:
        """The JSON value as it came; None when unset."""
        return self._data.get(name)

    def text(self, name: str, default: str = "") -> str:
        value = self._data.get(name, default)
        return value if isinstance(value, str) else self._refuse(name, value, "string")

    def flag(self, name: str) -> bool | None:
        value = self._data.get(name)
        return value if value is None or isinstance(value, bool) else self._refuse(name, value, "bool")

    def integer(self, name: str) -> int | None:
        value = self._data.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        return self._refuse(name, value, "int")

    def number(self, name: str) -> float | None:
        value = self._data.get(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        return self._refuse(name, value, "float64")

    def integers(self, name: str) -> list[int]:
        values = self.items(name, "[]int")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int):
                self._refuse(name, value, "int")
        return [value for value in values if isinstance(value, int)]

    def objects(self, name: str, kind: str) -> list[Fields]:
        """A list of objects of Go type ``kind``."""
        go_type = f"{self._package}.{kind}"
        return [self._object(name, value, go_type) for value in self.items(name, f"[]{go_type}")]

    def mapping(self, name: str) -> dict[str, object]:
        """An object whose keys keep their case."""
        value = self._data.get(name, {})
        return value if isinstance(value, dict) else self._refuse(name, value, "map[string]interface {}")

    def sub(self, name: str, kind: str) -> Fields:
        """A nested object of Go type ``kind``; one without fields when it is unset."""
        return self._object(name, self._data.get(name, {}), f"{self._package}.{kind}")

    def items(self, name: str, kind: str = "[]interface {}") -> list[object]:
        """A list whose items are not checked."""
        value = self._data.get(name, [])
        return value if isinstance(value, list) else self._refuse(name, value, kind)

    def _object(self, name: str, value: object, kind: str) -> Fields:
        if value is not None and not isinstance(value, dict):
            self._refuse(name, value, kind)
        return Fields(value or {}, f"{self._kind}.{name}", package=self._package)

    def _refuse(self, name: str, value: object, go_type: str) -> NoReturn:
        field, what = f"{self._kind}.{name}", _go_name(value)
        if go_type == "int" and isinstance(value, float):
            what = f"number {value}"
        raise ApiError(400, f"json: cannot unmarshal {what} into Go struct field {field} of type {go_type}")


def _first_value(text: str, missing: str) -> object:
    start = _WHITESPACE.match(text)
    position = start.end() if start else 0
    if position == len(text):
        raise ApiError(400, missing)
    try:
        value: object = _DECODER.raw_decode(text, position)[0]
    except json.JSONDecodeError as error:
        raise ApiError(400, syntax_error(text, error)) from error
    except RecursionError as error:
        raise ApiError(400, "exceeded max depth") from error
    except ValueError as error:  # a number with thousands of digits
        raise ApiError(400, "json: cannot unmarshal number into Go value of type float64") from error
    return value


def go_type(value: object) -> str:
    """What Go calls the type that a JSON value has where any is allowed."""
    return "<nil>" if value is None else _GO_TYPES[type(value)]


def _go_name(value: object) -> str:
    return "null" if value is None else _GO_NAMES[type(value)]


def _no_constant(name: str) -> object:
    raise ApiError(400, constant_error(name))


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ApiError(400, f"json: cannot unmarshal number {text[:32]} into Go value of type float64")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def without_surrogates(value: object) -> object:
    """Lone surrogates become U+FFFD, as in Go: they could not be encoded when they are echoed."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {str(without_surrogates(key)): without_surrogates(item) for key, item in value.items()}
    return value
