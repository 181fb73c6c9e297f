"""Request bodies: parsed once, and only as far as the gateway needs them.

Whatever is sent, the answer to a bad body is a 4xx. The content type is ignored and only the first JSON value counts;
keys are matched without regard to case, the last one wins, and null leaves a field unset, as with Go's decoder.
The bytes themselves go to the runner untouched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Final

from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import constant_error, syntax_error

MAX_VALUES: Final = 4_000_000
"""How many arrays, objects and commas a body may hold: parsing must not turn 64 MiB into gigabytes of objects."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A string, or the rest of the body where none ends: it never goes back, so its time is linear whatever is sent."""
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_SPACE = re.compile(r"[ \t\n\r]*")


def parse_body(body: bytes, *, kind: str, depth_limit: int, empty: str) -> dict[str, object]:
    """The first JSON value of the body, which must be an object; null counts as an empty one.

    ``kind`` is the type that Go's error texts name, ``empty`` the text for a body without any value.
    Raises ApiError with status 400.
    """
    check_shape(body, depth_limit)
    text = body.decode("utf-8", "replace")
    start = 0 if text.startswith("{") else _skip_space(text)
    if start == len(text):
        raise ApiError(400, empty)
    value = _decode(_DECODER, text, start)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError(400, f"json: cannot unmarshal {go_kind(value)} into Go value of type api.{kind}")
    return value if _plain(value) else _folded(text, start)


def _skip_space(text: str) -> int:
    found = _SPACE.match(text)
    return found.end() if found else 0


def check_shape(body: bytes, depth_limit: int) -> None:
    """Raises ApiError when the body nests deeper than the limit or holds too many values. Linear, mostly in C."""
    opened = body.count(b"[") + body.count(b"{")
    if len(body) > MAX_VALUES:
        closed = body.count(b"]") + body.count(b"}")
        if max(opened, closed) + body.count(b",") > MAX_VALUES:
            raise too_many()
    if opened <= depth_limit:
        return
    brackets = _STRING.sub(b"", body).translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(brackets).cast("b")), default=0) > depth_limit:
        raise too_deep(depth_limit)


def too_many() -> ApiError:
    return ApiError(400, f"the request body holds too many values (more than {MAX_VALUES})")


def too_deep(limit: int) -> ApiError:
    return ApiError(400, f"the request body is nested too deeply (more than {limit} levels)")


def field(data: Mapping[str, object], name: str, *, kind: str) -> str:
    """The text in this field, empty when it is unset. Raises ApiError 400 when it is no text."""
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        what = go_kind(value)
        raise ApiError(400, f"json: cannot unmarshal {what} into Go struct field {kind}.{name} of type string")
    if not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def go_kind(value: object) -> str:
    """What Go's decoder calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    kinds: Mapping[type, str] = {str: "string", list: "array", dict: "object", int: "number", float: "number"}
    return kinds.get(type(value), "null")


def _decode(decoder: json.JSONDecoder, text: str, start: int) -> object:
    try:
        value: object = decoder.raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        raise ApiError(400, syntax_error(text, error)) from None
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"invalid JSON in the request body: {error}") from None
    return value


def _plain(data: dict[str, object]) -> bool:
    """Whether the keys mean the same to Python's dict and to Go's decoder: lower case, and no null among them."""
    for value in data.values():
        if value is None:
            return False
    keys = "".join(data)
    return keys == keys.lower()


def _folded(text: str, start: int) -> dict[str, object]:
    """The object again, with Go's rules: keys without regard to case, the last one that is not null wins.

    Nested objects come out the same way; the gateway looks only at the top.
    """
    value = _decode(_FOLDING, text, start)
    return value if isinstance(value, dict) else {}


def _fold(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return {key.lower(): value for key, value in pairs if value is not None}


def _refuse_constant(name: str) -> object:
    raise ApiError(400, constant_error(name))


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_FOLDING: Final = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_fold)

Reader = Callable[[bytes], Mapping[str, object]]
