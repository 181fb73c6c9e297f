"""JSON of the API server with a bound on nesting, for objects that any user of the cluster can write.

Invariants:
- ``decode`` accepts any depth: a value below ``MAX_DEPTH`` levels is replaced by the text ``TOO_DEEP``. Python's JSON
  reader raises RecursionError at about 1,000 levels instead, for a whole page of objects.
- No decoded value is deeper than ``MAX_DEPTH``, so code that recurses over it (comparison, copy, encoding) is safe.
- Only the deep value of one object is replaced. Its name, its other fields and all other objects stay.

The deepest object of a Kubernetes API without free-form fields has about 20 levels. Measured for a page of 3.6 MB: the
check of the depth takes half of the time of decoding. The replacement, which only deep payloads need, takes three times
as long as decoding.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Protocol

MAX_DEPTH = 100
"""Levels of a response or of a line of a watch; the object in it is one or two levels below."""

TOO_DEEP = f"(nested more than {MAX_DEPTH} levels deep)"

MAX_LINE_BYTES = 16 << 20
"""Bytes of a line of a watch. etcd stores at most 1.5 MB, which JSON's escapes can make six times as long."""

_MARK = json.dumps(TOO_DEEP).encode()
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}\[\]]', re.DOTALL)
"""A string or a bracket. The quantifiers are possessive, so that damaged input takes linear time."""


class LineTooLong(ValueError):
    """A line of a watch with more than ``MAX_LINE_BYTES`` bytes."""


class ByteStream(Protocol):
    """The required part of ``aiohttp.StreamReader``."""

    async def readany(self) -> bytes: ...


def decode(payload: bytes) -> tuple[object, bool]:
    """Return the value and whether a part of it was replaced by ``TOO_DEEP``. Raises ValueError if it is not JSON."""
    try:
        value: object = json.loads(payload)
        deep = is_deep(value)
    except RecursionError:
        value, deep = None, True
    return (json.loads(without_deep_values(payload)), True) if deep else (value, False)


def bounded_line(line: bytes) -> bytes:
    """Return a line of JSON, with each value that is nested too deep replaced. Damaged JSON is returned as it is."""
    try:
        _, deep = decode(line)
    except ValueError:
        return line
    return without_deep_values(line) if deep else line


def is_deep(value: object, limit: int = MAX_DEPTH) -> bool:
    """Return whether objects and lists are nested in more than ``limit`` levels."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            child
            for each in level
            for child in (each.values() if type(each) is dict else each)
            if type(child) is dict or type(child) is list
        ]
    return bool(level)


def without_deep_values(payload: bytes, limit: int = MAX_DEPTH) -> bytes:
    """Replace each object and list below ``limit`` levels by ``TOO_DEEP``. Raises ValueError for a missing bracket."""
    kept: list[bytes] = []
    depth = start = 0
    for token in _TOKEN.finditer(payload):
        bracket = payload[token.start()]
        if bracket in b"{[":
            depth += 1
            if depth == limit + 1:
                kept += (payload[start : token.start()], _MARK)
        elif bracket in b"}]":
            if depth == limit + 1:
                start = token.end()
            depth -= 1
    if depth != 0:
        raise ValueError("the JSON is incomplete")
    return b"".join((*kept, payload[start:]))


def has_deep_value(value: object) -> bool:
    """Return whether a decoded value contains ``TOO_DEEP``."""
    pending = [value]
    while pending:
        each = pending.pop()
        if each == TOO_DEEP:
            return True
        if isinstance(each, dict):
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)
    return False


async def read_lines(stream: ByteStream) -> AsyncIterator[bytes]:
    """Yield the lines of a stream. Raises LineTooLong, and the errors of the stream.

    aiohttp's own iterator rejects lines of more than 128 KiB, which a Model with a long license has.
    """
    parts: list[bytes] = []
    size = 0
    while data := await stream.readany():
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield b"".join((*parts, line))
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > MAX_LINE_BYTES:
            raise LineTooLong(f"a line of a watch has more than {MAX_LINE_BYTES} bytes")
    if size:
        yield b"".join(parts)
