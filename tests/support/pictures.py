"""Small image files of several formats, made without an image library; only the PNG has decodable pixels."""

from __future__ import annotations

import base64
import struct
import zlib


def png(width: int = 8, height: int = 6, *, shade: int = 200, declared: tuple[int, int] | None = None) -> bytes:
    """Return a gray PNG file. ``declared`` is the size in its header, by default the true one."""
    header = struct.pack(">IIBBBBB", *(declared or (width, height)), 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([shade]) * width) * height
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def encoded(data: bytes | None = None) -> str:
    """Return the base64 of a file, by default of a small PNG."""
    return base64.b64encode(png() if data is None else data).decode()


def jpeg_header(width: int, height: int, *, before: bytes = b"") -> bytes:
    """Return the beginning of a JPEG file, with other segments before its frame."""
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + before + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
