"""Pixels of an image file, decoded in the worker process: a decoder of image files is no place for a client's data.

The worker has a limit of memory and of CPU time, and if the decoder crashes, only the request fails.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

from corral_server.runner.isolation.worker_process import (
    WorkerFailed,
    WorkerOutOfMemory,
    WorkerProcess,
    WorkerTimeout,
    shared_worker,
)
from corral_server.runner.llama.errors import InvalidPrompt
from corral_server.runner.llama.image_file import HEADER

CPU_SECONDS = 5.0
"""CPU time to decode a file; a photo of 12 megapixels takes 0.3 s."""
MAX_ASPECT = 200
"""Longer side in units of the shorter one. Scaled to the size of a projector, the shorter side of an image beyond it
would be less than a pixel, and mtmd ends the process for that."""


class Pixels(NamedTuple):
    """``data`` has three bytes for each pixel: red, green, blue; rows from the top."""

    width: int
    height: int
    data: bytes


def decode_pixels(data: bytes, worker: WorkerProcess | None = None) -> Pixels:
    """Decode an image file in the worker process. Blocks.

    Raises InvalidPrompt, and ApiError 413 or 503 without memory for it.
    """
    arguments = {"image": base64.b64encode(data).decode("ascii")}
    try:
        reply = (worker or shared_worker()).call("image", arguments, seconds=CPU_SECONDS)
    except WorkerTimeout:
        raise InvalidPrompt(f"an image takes longer than {CPU_SECONDS:g} s to decode: scale it down") from None
    except WorkerOutOfMemory as error:
        raise InvalidPrompt(f"an image needs too much memory: {error}: scale it down") from None
    except WorkerFailed:
        reply = b""
    if len(reply) <= HEADER.size:
        raise InvalidPrompt("an image is damaged, or of a format that is not supported: send PNG or JPEG")
    width, height = HEADER.unpack_from(reply)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidPrompt(f"an image has sides of {width} and {height} pixels, which differ too much: crop it")
    return Pixels(width, height, reply[HEADER.size :])
