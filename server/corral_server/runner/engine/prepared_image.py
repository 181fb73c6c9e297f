"""Prepared images and their cells: how an image stands in the tokens of a prompt.

A prompt is a sequence of integers. A number from 0 is a token. An image contributes tokens that llama.cpp writes around
it, and negative numbers, one for each position that it takes in the sequence. These are made from the image's digest,
so equal numbers mean equal keys and values in the KV cache, and the prefix cache compares images as it compares tokens.

A chunk is what the projector encodes at once: an image, or one of the tiles that the projector's model cuts it into.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from corral_server.runner.llama.errors import EngineError, InvalidPrompt
from corral_server.runner.llama.projector import Embeddings, EncodableChunk

_INDEX_BITS = 24
MAX_POSITIONS = 1 << _INDEX_BITS


@dataclass(eq=False, slots=True)
class ImageChunk:
    """``rows`` embeddings of the projector, which take the positions of ``cells`` in a sequence.

    M-RoPE gives an image fewer positions than rows. ``embeddings`` and ``error`` are set by the encoder's thread.
    """

    sha256: str
    cells: tuple[int, ...] = field(repr=False)
    rows: int
    source: EncodableChunk = field(repr=False)
    embeddings: Embeddings | None = field(default=None, repr=False)
    error: EngineError | None = None
    requested: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether it has been encoded, or cannot be."""
        return self.embeddings is not None or self.error is not None


@dataclass(eq=False)
class PreparedImage:
    """An image whose pixels are decoded and scaled. ``cells`` stand for it in ``GenerationTask.prompt``.

    It is encoded when a generation with it has a slot. ``sha256`` is the digest of the file in hex digits.
    """

    sha256: str
    cells: tuple[int, ...]
    chunks: tuple[ImageChunk, ...] = field(default=(), repr=False)

    @property
    def extra_cells(self) -> int:
        """Cells of the KV cache that the image takes beyond its positions."""
        return sum(chunk.rows - len(chunk.cells) for chunk in self.chunks)


def chunk_cells(sha256: str, number: int, positions: int) -> tuple[int, ...]:
    """Return the cells of the image's chunk of this number."""
    key = int.from_bytes(hashlib.sha256(f"{sha256}/{number}".encode()).digest()[:16])
    first = -(key << _INDEX_BITS) - 1
    return tuple(range(first, first - positions, -1))


class PromptImages:
    """The images of one generation: what the batch scheduler asks about the cells that are pending."""

    def __init__(self, chunks: Sequence[ImageChunk]) -> None:
        self._chunks = {chunk.cells[0]: chunk for chunk in chunks}
        self.extra_cells = sum(chunk.rows - len(chunk.cells) for chunk in chunks)
        self.rows_done = 0
        """Rows of the pending chunk that the KV cache holds, where its cells are pending until the last row."""

    def extra_cells_in(self, prefix: Sequence[int]) -> int:
        """Return the cells beyond the positions for the images in the first cells of the prompt."""
        chunks = (self._chunks[cell] for cell in prefix if cell in self._chunks)
        return sum(chunk.rows - len(chunk.cells) for chunk in chunks)

    def head(self, pending: Sequence[int]) -> tuple[ImageChunk, int] | None:
        """Return the chunk that is next, and which of its cells; None for a token."""
        if not pending or pending[0] >= 0:
            return None
        index = (-pending[0] - 1) & (MAX_POSITIONS - 1)
        return self._chunks[pending[0] + index], index


def text_length(pending: Sequence[int]) -> int:
    """Return the number of tokens before the first image."""
    return next((index for index, cell in enumerate(pending) if cell < 0), len(pending))


def text_tokens(prompt: Sequence[int]) -> tuple[int, ...]:
    """Return the prompt without the cells of images."""
    return tuple(token for token in prompt if token >= 0)


def images_of_prompt(prompt: Sequence[int], images: Sequence[PreparedImage]) -> PromptImages | None:
    """Return the images of a prompt, None without any.

    Raises InvalidPrompt where the prompt has cells that are not those of a whole image in ``images``, and where it ends
    with an image: the first token is sampled from the logits of a token.
    """
    known = {chunk.cells[0]: chunk for image in images for chunk in image.chunks}
    found: list[ImageChunk] = []
    at = text_length(prompt)
    while at < len(prompt):
        chunk = known.get(prompt[at])
        if chunk is None or tuple(prompt[at : at + len(chunk.cells)]) != chunk.cells:
            raise InvalidPrompt("the prompt has a token that is not in the model's vocabulary")
        found.append(chunk)
        at += len(chunk.cells)
        if at == len(prompt):
            raise InvalidPrompt("the prompt ends with an image: write text after it")
        at += text_length(prompt[at:])
    return PromptImages(found) if found else None
