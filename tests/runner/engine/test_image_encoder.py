"""Embeddings of images that are kept for later requests; a stand-in for the projector of llama.cpp."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import threading
from collections.abc import Iterator

import pytest

from corral_server.runner.engine.prepared_image import PreparedImage
from corral_server.runner.engine.stream import GenerationStream
from corral_server.runner.engine.vision.encoder import ImageEncoder
from corral_server.runner.llama.projector import Embeddings, EncodableChunk, Projector
from corral_server.runner.memory.budget import current_reservation
from tests.support.pictures import png

ROWS, SIZE = 4, 8
BYTES = ROWS * SIZE * 4


class Chunk(EncodableChunk):
    def __init__(self) -> None:
        self._handle = None
        self.rows = self.positions = ROWS

    def drop_pixels(self) -> None:
        pass


class StandIn(Projector):
    """Makes one chunk of every image, and embeddings of zeros."""

    def __init__(self) -> None:
        self.buffer_sizes = {}
        self.embedding_size = SIZE
        self.uses_mrope = self.attends_both_ways = False

    def prepare(self, pixels: bytes, width: int, height: int) -> tuple[tuple[int, ...] | EncodableChunk, ...]:
        return (Chunk(),)

    def encode(self, chunk: EncodableChunk) -> Embeddings:
        return (ctypes.c_float * (ROWS * SIZE))()

    def close(self) -> None:
        pass


def prepare(encoder: ImageEncoder, shade: int) -> PreparedImage:
    data = png(shade=shade)
    return encoder.prepare(data, hashlib.sha256(data).hexdigest())


@pytest.fixture
def encoded() -> threading.Semaphore:
    """Released after each chunk."""
    return threading.Semaphore(0)


@pytest.fixture
def encoder(encoded: threading.Semaphore) -> Iterator[ImageEncoder]:
    """Keeps the embeddings of two images."""
    encoder = ImageEncoder(StandIn(), context_length=64, batch_size=64, on_encoded=encoded.release, max_bytes=2 * BYTES)
    yield encoder
    encoder.close()


async def use(encoder: ImageEncoder, shade: int, encoded: threading.Semaphore) -> None:
    """Encode the image if needed and use it, as a generation does, without keeping it."""
    image = prepare(encoder, shade)
    (chunk,) = image.chunks
    if chunk.embeddings is None:
        encoder.request(chunk, GenerationStream(asyncio.get_running_loop(), current_reservation()))
        assert await asyncio.to_thread(encoded.acquire, timeout=30)
    encoder.keep(chunk)


def kept(encoder: ImageEncoder, *shades: int) -> list[bool]:
    gc.collect()
    return [prepare(encoder, shade).chunks[0].embeddings is not None for shade in shades]


async def test_embeddings_over_the_limit_are_forgotten(encoder: ImageEncoder, encoded: threading.Semaphore) -> None:
    for shade in (1, 2, 3):
        await use(encoder, shade, encoded)
    assert kept(encoder, 1, 2, 3) == [False, True, True]


async def test_embeddings_that_are_used_again_are_kept_longer(
    encoder: ImageEncoder, encoded: threading.Semaphore
) -> None:
    for shade in (1, 2, 1, 3):
        await use(encoder, shade, encoded)
    assert kept(encoder, 1, 2, 3) == [True, False, True]
