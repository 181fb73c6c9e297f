"""Frames on the pipes between a runner and its worker process, and the limits that both know.

A frame is one byte of kind, four bytes of length (big-endian) and the content. Both sides know the maximum length.
"""

from __future__ import annotations

import struct
from typing import IO, NamedTuple

MAX_FRAME_BYTES = 256 * 1024 * 1024
"""A prompt of 64 MiB, the maximum body of a request, with every character escaped."""
MEMORY_BYTES = 256 * 1024 * 1024
"""Maximum memory that a request may use beyond what the worker has mapped at its start."""
READY, REQUEST, RESULT, LAST_RESULT, NO_MEMORY, FAILED = b"R", b"Q", b"=", b"$", b"M", b"F"
"""Kinds. After ``LAST_RESULT``, ``NO_MEMORY`` and ``FAILED`` the worker ends."""

_HEAD = struct.Struct(">cI")


class Frame(NamedTuple):
    kind: bytes
    content: bytes


def write_frame(pipe: IO[bytes], kind: bytes, content: bytes = b"") -> None:
    """Write and flush one frame. Raises OSError, and ValueError for content over the maximum length."""
    if len(content) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(content)} bytes")
    pipe.write(_HEAD.pack(kind, len(content)))
    pipe.write(content)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> Frame | None:
    """Return the next frame; None at the end of the pipe, within a frame, and for a length over the maximum."""
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    kind, length = _HEAD.unpack(head)
    content = pipe.read(length) if length <= MAX_FRAME_BYTES else b""
    return Frame(kind, content) if len(content) == length else None
