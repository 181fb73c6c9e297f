"""Decoding of an image file to pixels by mtmd (stb_image). Only for the worker process: the file is a client's."""

from __future__ import annotations

import base64
import ctypes
import struct
from collections.abc import Mapping

from corral_server.runner.llama.projector import mtmd

HEADER = struct.Struct(">II")
"""Width and height in pixels, before the pixels."""


def perform(arguments: Mapping[str, object]) -> bytes:
    """Decode an image; the operation ``image`` of the worker process.

    Returns width, height and three bytes for each pixel, red, green and blue, in rows from the top; nothing for a file
    that is damaged or of another format (``mtmd_helper_bitmap_init_from_buf``).
    """
    text = arguments["image"]
    assert isinstance(text, str), "the runner sends the file as base64"
    data = base64.b64decode(text)
    library = mtmd()
    buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
    bitmap = library.mtmd_helper_bitmap_init_from_buf(None, buffer, len(data), False)
    if not bitmap or library.mtmd_bitmap_is_audio(bitmap):
        return b""
    size = HEADER.pack(library.mtmd_bitmap_get_nx(bitmap), library.mtmd_bitmap_get_ny(bitmap))
    pixels = ctypes.string_at(library.mtmd_bitmap_get_data(bitmap), library.mtmd_bitmap_get_n_bytes(bitmap))
    library.mtmd_bitmap_free(bitmap)
    return size + pixels
