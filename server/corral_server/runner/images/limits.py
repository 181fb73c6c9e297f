"""Limits of the images of one request, and the checks of an image before anything decodes its pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from corral_server.runner.images.header import InvalidImage, read_image_header
from corral_server.runner.images.image import Image
from corral_server.wire.errors import ApiError

BYTES_PER_PIXEL = 12
"""Memory of the runner for a pixel while an image is decoded and scaled: copies of red, green and blue. Images are
decoded one after another, and what is kept of them is of the size that the projector takes."""
MAX_COUNT, MAX_BYTES, MAX_PIXELS = 16, 20 << 20, 1 << 24
"""Default limits: a photo of 12 megapixels fits; the memory for it is in the estimate of a model with images."""
DECODED_FORMATS = frozenset({"PNG", "JPEG", "GIF", "BMP"})
"""Formats that llama.cpp decodes (stb_image); it would take others, such as TGA, for which no header is read here."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """``count`` is that of one request, ``bytes`` that of one file, ``pixels`` that of one image."""

    count: int = MAX_COUNT
    bytes: int = MAX_BYTES
    pixels: int = MAX_PIXELS


DEFAULT_LIMITS = ImageLimits()


def check_count(count: int, limits: ImageLimits) -> None:
    """Raises ApiError 400 for more images than a request may have."""
    if count > limits.count:
        raise ApiError(
            400,
            f"the request has {count} images, at most {limits.count} are allowed (CORRAL_MAX_IMAGES): leave out older "
            "ones",
        )


def check_size(size: int, limits: ImageLimits) -> None:
    """Raises ApiError 400 for a file of more bytes than an image may have."""
    if size > limits.bytes:
        raise ApiError(
            400, f"an image has {size} bytes, at most {limits.bytes} are allowed (CORRAL_MAX_IMAGE_BYTES): compress it"
        )


def checked_image(data: bytes, limits: ImageLimits) -> Image:
    """Return the image. Raises ApiError 400 for data that is no image of a known format, or exceeds a limit."""
    check_size(len(data), limits)
    try:
        header = read_image_header(data)
    except InvalidImage as error:
        raise ApiError(400, f"invalid image: {error}; send PNG or JPEG") from None
    if header.format not in DECODED_FORMATS:
        raise ApiError(400, f"{header.format} images are not supported: send PNG or JPEG")
    pixels = header.width * header.height
    if pixels > limits.pixels:
        raise ApiError(
            400,
            f"an image has {header.width} x {header.height} pixels, at most {limits.pixels} pixels are allowed "
            "(CORRAL_MAX_IMAGE_PIXELS): scale it down",
        )
    return Image(data, hashlib.sha256(data).hexdigest(), header.width, header.height)


def decoder_bytes(image: Image) -> int:
    """Return the memory in bytes that decoding the image takes in this process, beside its file."""
    return BYTES_PER_PIXEL * image.width * image.height
