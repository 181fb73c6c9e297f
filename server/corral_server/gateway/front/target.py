"""What a request target means: its path, decoded, and its query."""

from __future__ import annotations

import urllib.parse

import httptools


def split_target(target: bytes) -> tuple[str, bytes]:
    """Path (decoded) and query of a request target; what is no path comes out as one that no route has."""
    if not target.startswith(b"/"):
        try:
            parsed = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            return target.decode("latin-1"), b""
        return _decode(parsed.path or b""), parsed.query or b""
    path, _, query = target.partition(b"?")
    return _decode(path), query


def _decode(path: bytes) -> str:
    text = path.decode("utf-8", "replace")
    return urllib.parse.unquote(text) if "%" in text else text
