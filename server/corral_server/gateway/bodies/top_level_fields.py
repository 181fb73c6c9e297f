"""Parser for the top-level fields of large bodies, in slices of a few milliseconds.

Parsing a large body at once would block every stream of the gateway, for seconds when it is crafted for that. So only
the fields of the outermost object are parsed. Large or nested values are skipped and replaced by a non-empty value of
their kind; the runner validates them. After each ``SLICE`` other tasks run.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Generator, Mapping
from time import perf_counter

from corral_server.gateway.bodies.json_body import MAX_VALUES, parse_body, too_deep, too_many
from corral_server.wire.errors import ApiError
from corral_server.wire.go_json import fold_key

SLICE = 0.003
"""Seconds of parsing before other tasks run."""
SMALL = 64 * 1024
"""Bytes of a body that is parsed at once."""
_WHOLE = 64 * 1024
"""Bytes of a string, array or object that is parsed."""
_KEY = 1024
"""Bytes of a key that is compared; longer ones are no known fields."""
_FULL_ERROR = 1024 * 1024
"""Bytes of an invalid body up to which the full parser finds the exact error."""
_WINDOW = 512 * 1024
_FIELDS = 10_000
"""Fields of the object: no API has more than a few dozen."""
_RETURNED = frozenset(("model", "name", "source", "destination", "system"))
"""Fields whose text is returned in a response, up to ``_FULL_ERROR`` bytes; longer ones are not names."""

_STAND_INS: Mapping[bytes, object] = {b'"': "...", b"[": [None], b"{": {"": None}}

_SPACE = re.compile(rb"[ \t\n\r]*+")
_SCALAR = re.compile(rb"[^][{}\",: \t\n\r]{1,4096}+")
_TEXT = rb'[^][{}"\\]++|"[^"\\]{0,200}+"'
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
"""The inside of a string."""
_RUN = re.compile(rb"(?:%b)*+" % _TEXT)
"""Text without brackets, short strings included."""
_FLAT_RUN = re.compile(rb"(?:%b|\[(?:%b)*+\]|\{(?:%b)*+\})*+" % (_TEXT, _TEXT, _TEXT))
"""The same, with arrays and objects that hold no others."""

Work = Generator[None, None, int]
"""Returns the index after a value; other tasks may run at every ``yield``."""


class _NotJson(Exception):
    """The part that was parsed is not JSON."""


async def read_object(body: bytes, *, kind: str, depth_limit: int, empty: str) -> Mapping[str, object]:
    """Return the fields of the body's object, as ``parse_body`` does. Raises ApiError."""
    if len(body) <= SMALL:
        return parse_body(body, kind=kind, depth_limit=depth_limit, empty=empty)
    reading = _object(body, depth_limit)
    due = perf_counter() + SLICE
    try:
        while True:
            next(reading)
            if perf_counter() > due:
                await asyncio.sleep(0)
                due = perf_counter() + SLICE
    except StopIteration as end:
        data: Mapping[str, object] = end.value
        return data
    except (_NotJson, ValueError, RecursionError):
        if len(body) <= _FULL_ERROR:
            return parse_body(body, kind=kind, depth_limit=depth_limit, empty=empty)
        raise ApiError(400, "invalid JSON in the request body") from None


def _object(body: bytes, depth_limit: int) -> Generator[None, None, Mapping[str, object]]:
    """Parse the outermost object: folded keys, the last of equal ones that is not null wins (wire/go_json.py)."""
    yield from _count(body)
    data: dict[str, object] = {}
    at = yield from _spaces(body, 0)
    if body[at : at + 1] != b"{":
        raise _NotJson
    at = yield from _spaces(body, at + 1)
    if body[at : at + 1] == b"}":
        return data
    for _ in range(_FIELDS):
        key_end = yield from _string(body, at)
        key = fold_key(str(_parsed(body[at:key_end]))) if key_end - at <= _KEY else ""
        at = yield from _spaces(body, key_end)
        if body[at : at + 1] != b":":
            raise _NotJson
        at = yield from _spaces(body, at + 1)
        end = yield from _value(body, at, depth_limit)
        value = _stand_in(body, at, end, most=_FULL_ERROR if key in _RETURNED else _WHOLE)
        if value is not None:
            data[key] = value
        at = yield from _spaces(body, end)
        if body[at : at + 1] == b"}":
            return data
        if body[at : at + 1] != b",":
            raise _NotJson
        at = yield from _spaces(body, at + 1)
        yield
    raise ApiError(400, f"the request body has too many fields (more than {_FIELDS})")


def _count(body: bytes) -> Generator[None, None, None]:
    """Raise ApiError for more values than the runner, which parses all of them, should have to hold."""
    opened = closed = commas = 0
    for start in range(0, len(body), _WINDOW):
        window = body[start : start + _WINDOW]
        opened += window.count(b"[") + window.count(b"{")
        closed += window.count(b"]") + window.count(b"}")
        commas += window.count(b",")
        if max(opened, closed) + commas > MAX_VALUES:
            raise too_many()
        yield


def _stand_in(body: bytes, at: int, end: int, *, most: int) -> object:
    """Return the value, or a replacement of its kind. Raises ValueError for invalid JSON."""
    first = body[at : at + 1]
    if end - at <= (most if first == b'"' else _WHOLE) or first not in _STAND_INS:
        return _parsed(body[at:end])
    return _STAND_INS[first]


def _value(body: bytes, at: int, depth_limit: int) -> Work:
    first = body[at : at + 1]
    if first == b'"':
        return (yield from _string(body, at))
    if first in (b"[", b"{"):
        return (yield from _nested(body, at, depth_limit))
    found = _SCALAR.match(body, at)
    if found is None:
        raise _NotJson
    return found.end()


def _string(body: bytes, at: int) -> Work:
    """Skip a string; ``at`` is the index of its opening quote."""
    if body[at : at + 1] != b'"':
        raise _NotJson
    at += 1
    while at < len(body):
        end = body.find(b'"', at, at + _WINDOW)
        slash = body.find(b"\\", at, at + _WINDOW if end < 0 else end)
        if slash < 0:
            if end >= 0:
                return end + 1
            at += _WINDOW
        else:  # which quote is the last one takes a closer look
            found = _INSIDE.match(body, slash, slash + _WINDOW)
            assert found is not None  # it may be empty
            at = found.end()
            if at == slash:
                break
            if body[at : at + 1] == b'"':
                return at + 1
        yield
    raise _NotJson


def _nested(body: bytes, at: int, depth_limit: int) -> Work:
    """Skip an array or object; ``at`` is the index of its opening bracket. The outermost object is level 1."""
    depth = 1
    while True:
        run = _FLAT_RUN if 1 < depth < depth_limit else _RUN
        found = run.match(body, at, at + _WINDOW)
        assert found is not None  # it may be empty
        at = found.end()
        here = body[at : at + 1]
        if here in (b"[", b"{"):
            depth += 1
            if depth > depth_limit:
                raise too_deep(depth_limit)
        elif here in (b"]", b"}"):
            depth -= 1
            if depth == 1:
                return at + 1
        elif here == b'"':
            at = (yield from _string(body, at)) - 1
        elif not here or here == b"\\":
            raise _NotJson
        else:
            at -= 1  # the window ended here
        at += 1
        yield


def _spaces(body: bytes, at: int) -> Work:
    while True:
        found = _SPACE.match(body, at, at + _WINDOW)
        assert found is not None  # it may be empty
        if found.end() < at + _WINDOW:
            return found.end()
        at = found.end()
        yield


def _parsed(value: bytes) -> object:
    """Raises ValueError for invalid JSON."""
    parsed: object = _DECODER.decode(value.decode("utf-8", "replace"))
    return parsed


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
