"""Upper bound of the memory that parsing a JSON body takes, computed from its bytes in linear time.

A short body can become many objects (``[[[[``, ``{"a":1}``), and one emoji makes every character of its string four
bytes wide. The costs were measured with ``tracemalloc`` over the kinds of values in tests/runner/memory and include the
copies that the endpoints make of messages and tools.

The body is read in pieces, between which other threads run: no call holds the interpreter's lock for long.
"""

from __future__ import annotations

import re
from typing import Final

_COSTS = {b"{": 200, b"[": 100, b":": 170, b",": 104}
"""Bytes by the character that begins or follows a value outside of strings."""
_COPIES = 3
"""A text is held as JSON or as rendered prompt, as the value itself, and as a part that is tokenized."""
_PIECE = 256 * 1024
"""Bytes of a piece."""
_FOUR_BYTES = re.compile(rb"[\xf0-\xff]")
"""First byte of the UTF-8 of a character above U+FFFF."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Escape of one half of such a character."""
_SURROGATE_LENGTH: Final = 4


def parsed_size(body: bytes | bytearray) -> int:
    """Return the bytes of memory that a request with this body takes at most while its prompt is made."""
    values, width, in_string, position = 0, 1, False, 0
    while position < len(body):
        end = position + _PIECE
        width = max(width, _character_width(body[position : end + _SURROGATE_LENGTH - 1]))
        piece = body[position:end]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = body[position : end + 1]  # the rest of an escape
        position += len(piece)
        parts = piece.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        structure = b"".join(parts[in_string::2])
        in_string ^= len(parts) % 2 == 0
        values += sum(structure.count(character) * cost for character, cost in _COSTS.items())
    return values + _COPIES * len(body) * width


def _character_width(piece: bytes | bytearray) -> int:
    """Return how many bytes Python takes for each character of the widest string at most."""
    plain, escaped = piece.isascii(), b"\\u" in piece
    if (not plain and _FOUR_BYTES.search(piece)) or (escaped and _SURROGATE.search(piece)):
        return 4
    return 1 if plain and not escaped else 2
