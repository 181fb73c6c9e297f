"""Request target: its path, decoded, and its query (RFC 9112 section 3.2)."""

from __future__ import annotations

import urllib.parse

import httptools


def split_target(target: bytes) -> tuple[str, bytes]:
    """Return path (decoded) and query of a request target. What is not a path comes out as one that no route has."""
    if not target.startswith(b"/"):
        try:
            parsed = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            return target.decode("latin-1"), b""
        raw_path: bytes | None = parsed.path
        raw_query: bytes | None = parsed.query
        return _decode(raw_path or b""), raw_query or b""
    path, _, query = target.partition(b"?")
    return _decode(path), query


def _decode(path: bytes) -> str:
    text = path.decode("utf-8", "replace")
    return urllib.parse.unquote(text) if "%" in text else text
