"""Images of one request: decoded, prepared by the engine, and put into the tokens of a prompt.

The functions are CPU-bound and must be called outside the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from corral_server.runner.chat.long_text import tokenize_ends
from corral_server.runner.engine.generation import Engine
from corral_server.runner.engine.prepared_image import PreparedImage
from corral_server.runner.images.encoded import EncodedImage, split_at_images
from corral_server.runner.images.limits import ImageLimits, check_count, decoder_bytes
from corral_server.runner.memory.budget import current_reservation
from corral_server.runner.templates.templates import ChatTemplateError, Message

TokenizeText = Callable[[Engine, str], list[int]]


def images_of(messages: Iterable[Message]) -> tuple[EncodedImage, ...]:
    """Return the images of messages, in their order."""
    found: list[EncodedImage] = []
    for message in messages:
        images = message.get("images")
        found += images if isinstance(images, list) else []
    return tuple(found)


class PromptImages:
    """The images of one request. Each is decoded when it is in a prompt for the first time."""

    def __init__(self, engine: Engine, images: Sequence[EncodedImage], limits: ImageLimits) -> None:
        """Raises ApiError 400 for too many images."""
        check_count(len(images), limits)
        self._engine = engine
        self._limits = limits
        self._images = {image.marker: image for image in images}
        self._prepared: dict[str, PreparedImage] = {}

    def check_places(self, text: str, images: Sequence[EncodedImage]) -> None:
        """Raises ChatTemplateError unless the rendered text has a place for each of the images."""
        if any(text.count(image.marker) != 1 for image in images):
            raise ChatTemplateError("the chat template has no place for an image in a message", is_client_error=True)

    def tokenize(self, text: str, tokenize_beginning: TokenizeText) -> tuple[list[int], tuple[PreparedImage, ...]]:
        """Return the tokens of a rendered text with the cells of its images, and these images.

        ``tokenize_beginning`` tokenizes the text before the first image. Raises ApiError and InvalidPrompt.
        """
        first, *rest = split_at_images(text, self._images) if self._images else (text,)
        beginning = "" if first in self._images else first
        tokens, used = tokenize_beginning(self._engine, beginning), dict[str, PreparedImage]()
        for part in (first, *rest) if not beginning else rest:
            if part in self._images:
                used[part] = image = self._prepare(part)
                tokens += image.cells
            else:
                tokens += tokenize_ends(self._engine, part, add_special=False)
        return tokens, tuple(used.values())

    def _prepare(self, marker: str) -> PreparedImage:
        known = self._prepared.get(marker)
        if known is not None:
            return known
        image = self._images[marker].decode(self._limits)
        reservation, size = current_reservation(), decoder_bytes(image)
        reservation.grow(size)
        try:
            self._prepared[marker] = prepared = self._engine.prepare_image(image.data, image.sha256)
        finally:
            reservation.shrink(size)
        return prepared
