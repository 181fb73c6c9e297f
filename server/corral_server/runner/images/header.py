"""Width and height that an image file declares, read from its header without decoding its pixels.

A few kilobytes of a file can declare gigabytes of pixels, so this is checked before any decoder sees the file. The
formats are distinguished by their first bytes, as decoders do, and never by what the client says.

Sources: the PNG specification (section 11.2.1), ITU-T T.81 (B.2.2), the GIF89a specification (section 18), the BMP
headers of Windows, and RFC 9649 for WebP.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of JPEG that begin a frame (SOF): all of the range but DHT, JPG and DAC."""
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers of JPEG without a length."""

_BMP_HEADERS = frozenset({12, 40, 56, 108, 124})
"""Lengths of the information header of a BMP file, by its version."""


class InvalidImage(ValueError):
    """The data is no image of a known format, or its header is damaged."""


class ImageHeader(NamedTuple):
    """``format`` is the name for errors; the size is in pixels."""

    format: str
    width: int
    height: int


def read_image_header(data: bytes) -> ImageHeader:
    """Read the header in time linear in its size. Raises InvalidImage."""
    try:
        header = _read(data)
    except (struct.error, IndexError):
        raise InvalidImage("the header of the image is incomplete") from None
    if header is None:
        raise InvalidImage("the data is not an image of a known format")
    if header.width < 1 or header.height < 1:
        raise InvalidImage(f"the {header.format} image declares {header.width} x {header.height} pixels")
    return header


def _read(data: bytes) -> ImageHeader | None:
    if data.startswith(_PNG) and data[12:16] == b"IHDR":
        return ImageHeader("PNG", *struct.unpack_from(">II", data, 16))
    if data.startswith(b"\xff\xd8"):
        return ImageHeader("JPEG", *_jpeg_size(data))
    if data.startswith((b"GIF87a", b"GIF89a")):
        return ImageHeader("GIF", *struct.unpack_from("<HH", data, 6))
    if data.startswith(b"BM") and struct.unpack_from("<I", data, 14)[0] in _BMP_HEADERS:
        return ImageHeader("BMP", *_bmp_size(data))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ImageHeader("WebP", *_webp_size(data))
    return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk over the segments to the first frame. Further frames, as in a thumbnail, are inside of other segments."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise InvalidImage("the JPEG image is damaged before its first frame")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])


def _bmp_size(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height: the rows begin at the top


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return (width, height) if len(data) >= 30 else (0, 0)
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
