"""JSON request bodies, parsed once for the fields that the gateway needs.

- An invalid body is always answered with a 4xx.
- As with Ollama, the content type is ignored and only the first JSON value counts. Keys are read by the rules of
  wire/go_json.py, as in the runner: a body that names several models means the same one in both.
- The bytes are forwarded unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import (
    decode_first_value,
    fold_fields,
    is_folded,
    json_kind,
    object_from_pairs,
    reject_constant,
)

MAX_VALUES: Final = 4_000_000
"""Arrays, objects and commas in a body: parsing must not turn 64 MiB into gigabytes of objects."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A string, or the rest of the body when it does not end. It never backtracks, so its time is linear."""
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def parse_body(body: bytes, *, kind: str, depth_limit: int, empty: str) -> dict[str, object]:
    """Return the first JSON value of the body, which must be an object; null counts as an empty object.

    ``kind`` is the Go type in error texts, of package ``api`` unless it names another one; ``empty`` is the error text
    for a body without a value.
    Raises ApiError with status 400.
    """
    check_shape(body, depth_limit)
    text = body.decode("utf-8", "replace")
    value = decode_first_value(text, _DECODER, empty=empty)
    if value is None:
        return {}
    if not isinstance(value, dict):
        go_type = kind if "." in kind else f"api.{kind}"
        raise ApiError(400, f"json: cannot unmarshal {json_kind(value)} into Go value of type {go_type}")
    return value if is_folded(value) else _folded(text)


def check_shape(body: bytes, depth_limit: int) -> None:
    """Raise ApiError for too deep nesting or too many values. Takes linear time, mostly in C."""
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
    """Return the string in this field, empty when it is unset. Raises ApiError 400 when it is not a string."""
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        what = json_kind(value)
        raise ApiError(400, f"json: cannot unmarshal {what} into Go struct field {kind}.{name} of type string")
    if not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def requested_context(path: str, data: Mapping[str, object]) -> int:
    """Return the option ``num_ctx`` of a request to Ollama's API, 0 without one. The runner reports a wrong type."""
    options = data.get("options") if path.startswith("/api/") else None
    value = options.get("num_ctx") if isinstance(options, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(max(0, min(value, 2**31 - 1)))


def _folded(text: str) -> dict[str, object]:
    """Parse again: the fast decoder keeps the last of equal keys, also if it is null."""
    value = decode_first_value(text, _PAIRS_DECODER, empty="")
    return fold_fields(value) if isinstance(value, dict) else {}


_DECODER: Final = json.JSONDecoder(parse_constant=reject_constant)
_PAIRS_DECODER: Final = json.JSONDecoder(parse_constant=reject_constant, object_pairs_hook=object_from_pairs)
