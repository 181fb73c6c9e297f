"""Width and height in the headers of image files, complete, damaged and hostile ones."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.images.header import InvalidImage, read_image_header
from tests.support.pictures import jpeg_header, png

THUMBNAIL = b"\xff\xe1" + struct.pack(">H", 4 + len(jpeg_header(16, 12))) + b"xx" + jpeg_header(16, 12)
"""A segment of EXIF data with an image in it."""
BMP = b"BM" + bytes(12) + struct.pack("<Iii", 40, 7, -5) + bytes(28)
OLD_BMP = b"BM" + bytes(12) + struct.pack("<IHH", 12, 7, 5) + bytes(4)
WEBP = b"RIFF" + bytes(4) + b"WEBP"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(7, 5), ("PNG", 7, 5)),
        (jpeg_header(7, 5), ("JPEG", 7, 5)),
        (jpeg_header(640, 480, before=THUMBNAIL), ("JPEG", 640, 480)),
        (jpeg_header(7, 5, before=b"\xff\xff\xff\xfe\x00\x03x"), ("JPEG", 7, 5)),
        (jpeg_header(7, 5).replace(b"\xff\xc0", b"\xff\xc2"), ("JPEG", 7, 5)),
        (b"GIF89a" + struct.pack("<HH", 7, 5), ("GIF", 7, 5)),
        (BMP, ("BMP", 7, 5)),
        (OLD_BMP, ("BMP", 7, 5)),
        (WEBP + b"VP8 " + bytes(10) + struct.pack("<HH", 7, 5), ("WebP", 7, 5)),
        (WEBP + b"VP8L" + bytes(4) + b"\x2f" + struct.pack("<I", 6 | 4 << 14), ("WebP", 7, 5)),
        (WEBP + b"VP8X" + bytes(8) + b"\x06\0\0\x04\0\0", ("WebP", 7, 5)),
    ],
)
def test_the_size_in_the_header_is_read(data: bytes, expected: tuple[str, int, int]) -> None:
    assert read_image_header(data) == expected


@pytest.mark.parametrize("data", [png(7, 5), jpeg_header(7, 5), BMP, WEBP + b"VP8X" + bytes(8) + b"\x06\0\0\x04\0\0"])
def test_an_incomplete_header_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        read_image_header(data[: 23 if data.startswith(b"\x89") else 10])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"8BPS" + bytes(100),
        b"BM" + bytes(100),
        png(7, 5).replace(b"IHDR", b"CgBI"),
        png(declared=(0, 5)),
        b"\xff\xd8" + bytes(100),
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 100,
    ],
)
def test_data_without_a_known_header_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        read_image_header(data)


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF89a", b"BM", WEBP + b"VP8L"]), st.binary(max_size=80))
def test_no_data_causes_another_error(start: bytes, rest: bytes) -> None:
    try:
        header = read_image_header(start + rest)
    except InvalidImage:
        return
    assert min(header.width, header.height) > 0
