"""What the head of a request means: its path, decoded, and its query; how its body is framed."""

from __future__ import annotations

import urllib.parse

import httptools

from corral_server.gateway.messages import Headers

_FRAMING = (b"content-length", b"transfer-encoding")


def split_target(target: bytes) -> tuple[str, bytes]:
    """Path (decoded) and query of a request target; what is no path comes out as one that no route has."""
    if not target.startswith(b"/"):
        try:
            parsed = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            return target.decode("latin-1"), b""
        there: bytes | None = parsed.path
        asked: bytes | None = parsed.query
        return _decode(there or b""), asked or b""
    path, _, query = target.partition(b"?")
    return _decode(path), query


def _decode(path: bytes) -> str:
    text = path.decode("utf-8", "replace")
    return urllib.parse.unquote(text) if "%" in text else text


def body_head(headers: Headers) -> bytes:
    """A head after which a new parser reads the body that these headers announce; empty when they announce none."""
    lines = [name + b": " + value + b"\r\n" for name, value in headers if name in _FRAMING]
    return b"".join([b"POST / HTTP/1.1\r\n", *lines, b"\r\n"]) if lines else b""
