"""Request bodies, read by the rules of Ollama's JSON decoder (Go's ``encoding/json``).

- The Content-Type is ignored and only the first JSON value is read.
- Keys are read by the rules of wire/go_json.py, as in the gateway; unknown keys are ignored; ``null`` counts as unset.
- Every error is an ``ApiError`` 400 with the text of Go's decoder, so no value of an unexpected type reaches the
  engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn, TypeVar

from starlette.requests import Request

from corral_server.runner.isolation.threads import run_at_low_priority
from corral_server.runner.memory.budget import current_reservation
from corral_server.runner.memory.json_size import parsed_size
from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import (
    STRICT_DECODER,
    decode_first_value,
    fold_fields,
    json_kind,
    may_have_surrogates,
    replace_surrogates,
)

_GO_TYPES: Mapping[type, str] = {
    str: "string",
    bool: "bool",
    int: "float64",
    float: "float64",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}

_OWN_DECODERS = frozenset(("api.Alias", "anthropic.MessageParam"))
"""Types with an ``UnmarshalJSON`` of their own: Go names the outer struct in errors of their fields."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Maximum size of a request body in bytes. The gateway has its own limit."""

THREAD_BYTES = 1024 * 1024
"""Bytes above which a body is parsed in a thread. Measured on a busy machine for 8 MiB: a list of messages stops the
event loop for 24 ms, and for 300 ms without a thread; an image for 16 ms, and for 140 ms."""

T = TypeVar("T")


async def read_fields(request: Request, kind: str, *, package: str = "api") -> RequestFields:
    """Read and parse the body of a request; see ``parse_body``.

    The memory for the body, and for the objects that it becomes, is reserved until the response has ended. Raises
    ApiError 413 for a body over MAX_BODY_BYTES or the budget for requests, 503 while the budget is used up.
    """
    body, reservation = bytearray(), current_reservation()
    async for part in request.stream():
        if len(body) + len(part) > MAX_BODY_BYTES:
            raise ApiError(413, f"request body too large: at most {MAX_BODY_BYTES} bytes are allowed")
        reservation.grow(len(part))
        body += part
    size = await _run(body, partial(parsed_size, body))
    reservation.grow(max(0, size - len(body)))
    return await _run(body, partial(parse_body, body, kind, package=package))


async def _run(body: bytearray, function: Callable[[], T]) -> T:
    """Return what the function makes of the body, of a large one in a thread: other streams go on meanwhile."""
    return function() if len(body) <= THREAD_BYTES else await run_at_low_priority(function)


def parse_body(body: bytes | bytearray, kind: str, *, package: str = "api") -> RequestFields:
    """Return the fields of the first JSON value. ``kind`` is the request's type in a Go package of Ollama.

    Raises ApiError 400. The type is part of the texts, and the text for an empty body depends on the package: Ollama's
    own handlers replace Go's ``EOF``.
    """
    text = body.decode("utf-8", "replace")
    value = decode_first_value(text, STRICT_DECODER, empty="missing request body" if package == "api" else "EOF")
    if not isinstance(value, dict):
        raise ApiError(400, f"json: cannot unmarshal {json_kind(value)} into Go value of type {package}.{kind}")
    if may_have_surrogates(text):
        value = {key: replace_surrogates(item) for key, item in value.items()}
    return RequestFields(value, kind, package=package)


class RequestFields:
    """One JSON object, read by lower-case field name with checked types. Unset and null give the default.

    ``kind`` is the Go struct in error texts, ``path`` the names of the fields that lead to the object, each with a
    point after it; ``own_decoder`` is set within a type of ``_OWN_DECODERS``.
    """

    def __init__(
        self,
        data: Mapping[str, object],
        kind: str,
        *,
        package: str = "api",
        path: str = "",
        own_decoder: bool = False,
    ) -> None:
        self._package = package
        self._data = fold_fields(data)
        self._kind = kind
        self._path = path
        self._own_decoder = own_decoder

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def value(self, name: str) -> object:
        """Return the JSON value unchecked; None when unset."""
        return self._data.get(name)

    def string(self, name: str, default: str = "") -> str:
        value = self._data.get(name, default)
        return value if isinstance(value, str) else self._type_error(name, value, "string")

    def boolean(self, name: str) -> bool | None:
        value = self._data.get(name)
        return value if value is None or isinstance(value, bool) else self._type_error(name, value, "bool")

    def integer(self, name: str) -> int | None:
        value = self._data.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        return self._type_error(name, value, "int")

    def number(self, name: str) -> float | None:
        value = self._data.get(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        return self._type_error(name, value, "float64")

    def integers(self, name: str) -> list[int]:
        values = self.array(name, "[]int")
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int):
                self._type_error(name, value, "int")
        return [value for value in values if isinstance(value, int)]

    def strings(self, name: str, kind: str) -> list[str]:
        """Return an array of Go type ``kind`` whose items are strings."""
        values = self.array(name, kind)
        for value in values:
            if not isinstance(value, str):
                self._type_error(name, value, kind.removeprefix("[]"))
        return [value for value in values if isinstance(value, str)]

    def objects(self, name: str, kind: str, *, decoded_as: str = "") -> list[RequestFields]:
        """Return an array of objects of Go type ``kind``.

        ``decoded_as`` is the type that the errors about an item name, where Ollama decodes it as another one.
        """
        values = self.array(name, f"[]{self._package}.{kind}")
        return [self._object(name, value, f"{self._package}.{decoded_as or kind}") for value in values]

    def mapping(self, name: str) -> dict[str, object]:
        """Return an object whose keys keep their case."""
        value = self._data.get(name, {})
        return value if isinstance(value, dict) else self._type_error(name, value, "map[string]interface {}")

    def nested(self, name: str, kind: str) -> RequestFields:
        """Return a nested object of Go type ``kind``; it is empty when unset."""
        return self._object(name, self._data.get(name, {}), f"{self._package}.{kind}")

    def array(self, name: str, kind: str = "[]interface {}") -> list[object]:
        """Return an array with unchecked items."""
        value = self._data.get(name, [])
        return value if isinstance(value, list) else self._type_error(name, value, kind)

    def _object(self, name: str, value: object, kind: str) -> RequestFields:
        if value is not None and not isinstance(value, dict):
            self._type_error(name, value, kind)
        own_decoder = self._own_decoder or kind in _OWN_DECODERS
        struct = self._kind if own_decoder else kind.rpartition(".")[2]
        path = f"{self._path}{name}."
        return RequestFields(value or {}, struct, package=self._package, path=path, own_decoder=own_decoder)

    def _type_error(self, name: str, value: object, go_type: str) -> NoReturn:
        field, what = f"{self._kind}.{self._path}{name}", json_kind(value)
        if go_type == "int" and isinstance(value, float):
            what = f"number {value}"
        raise ApiError(400, f"json: cannot unmarshal {what} into Go struct field {field} of type {go_type}")


def go_type_name(value: object) -> str:
    """Return Go's name of the type that a JSON value has in an ``any`` field."""
    return "<nil>" if value is None else _GO_TYPES[type(value)]
