"""Images of a request as base64, before they are decoded.

Where an image is in the text of a message, the text has its marker: a random one for each image, so that no text of a
client can stand for an image. The rendered prompt is split at the markers (``split_at_images``). A chat template never
sees an image itself: llama.cpp writes the tokens before and after an image, and what a template writes for an image
would be there a second time (``tools/server/server-common.cpp``: ``oaicompat_chat_params_parse``).
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from corral_server.runner.images.image import Image
from corral_server.runner.images.limits import ImageLimits, check_size, checked_image
from corral_server.wire.errors import ApiError

_TAG = "[img]"
"""Text of a message that stands for its next image in Ollama's ``server/prompt.go``."""
_NEWLINES = re.compile(r"[\r\n]")
_OUTSIDE = re.compile(r"[^A-Za-z0-9+/\r\n]")
_MARKER = "<__image_{}__>"


def _new_marker() -> str:
    return _MARKER.format(secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """``text`` is base64; ``error`` is the text of the API for anything else, in which ``{}`` stands for Go's error."""

    text: str = field(repr=False)
    error: str = "{}"
    marker: str = field(default_factory=_new_marker)

    def decode(self, limits: ImageLimits) -> Image:
        """Decode and check the image. Raises ApiError 400."""
        digits = _NEWLINES.sub("", self.text)
        check_size(len(digits) // 4 * 3 - digits[-2:].count("="), limits)
        try:
            data = base64.b64decode(digits, validate=True)
        except ValueError:  # binascii.Error, or a character that is not ASCII
            data = None
        if data is None or len(digits) % 4:  # Python accepts padding behind a complete group
            raise ApiError(400, self.error.format(go_base64_error(self.text)))
        return checked_image(data, limits)


def go_base64_error(text: str) -> str:
    """Return the error of Go's ``base64.StdEncoding`` for a text that is not base64 with padding."""
    return f"illegal base64 data at input byte {_error_position(text)}"


def _error_position(text: str) -> int:
    """Return the position as ``decodeQuantum`` in Go's ``encoding/base64/base64.go`` counts it."""
    found = _OUTSIDE.search(text)
    end = found.start() if found else len(text)
    digits = end - len(_NEWLINES.findall(text, 0, end))
    if found is None:  # the last group of four characters is incomplete
        return end - digits % 4
    if found[0] != "=" or digits % 4 < 2:
        return end
    rest = re.compile(r"[\r\n]*").match(text, end + 1)
    after = rest.end() if rest else len(text)
    if digits % 4 == 3:
        return after
    if after == len(text) or text[after] != "=":
        return after if after == len(text) else after - 1
    return after + 1


def text_with_images(text: str, images: Sequence[EncodedImage]) -> str:
    """Return the text with the images' markers: at each ``[img]``, and those without one before the text."""
    before = []
    for image in images:
        if _TAG in text:
            text = text.replace(_TAG, image.marker, 1)
        else:
            before.append(image.marker)
    return "".join((*before, text))


def split_at_images(text: str, markers: Iterable[str]) -> tuple[str, ...]:
    """Split a rendered prompt at the markers, which are parts of their own. No part is empty."""
    pattern = "|".join(map(re.escape, markers))
    return tuple(part for part in re.split(f"({pattern})", text) if part) if pattern else (text,)


def shown_prompt(text: str, images: Iterable[EncodedImage]) -> str:
    """Return a rendered prompt with Ollama's tags, ``[img-0]`` and so on, in place of the images' markers."""
    for index, image in enumerate(images):
        text = text.replace(image.marker, f"[img-{index}]")
    return text
