"""Images of the engine: prepared for prompts, encoded in a thread of their own, and kept for later requests.

An encoding is one graph of ggml that cannot be cut into pieces, so in the engine's thread it would stop all streams for
its whole duration. In a thread of its own the streams continue meanwhile, on the CPU at a lower speed.

Invariants:

- only the encoder's thread encodes; an image whose requests have all left is not encoded;
- embeddings are kept by the digest of the file, the most recently used ones up to ``max_bytes``.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple
from weakref import WeakValueDictionary

from corral_server.runner.engine.loading.parts import EngineParts
from corral_server.runner.engine.prepared_image import (
    MAX_POSITIONS,
    ImageChunk,
    PreparedImage,
    chunk_cells,
)
from corral_server.runner.engine.stream import GenerationStream
from corral_server.runner.engine.vision.pixels import decode_pixels
from corral_server.runner.llama.errors import EngineError, EngineFailed, InvalidPrompt
from corral_server.runner.llama.projector import Projector

log = logging.getLogger("corral.runner.engine")

CACHED_BYTES = 64 * 1024 * 1024
"""Memory of the embeddings that are kept; an image of 576 rows for a model of width 4096 takes 9 MiB."""


class _Request(NamedTuple):
    chunk: ImageChunk
    stream: GenerationStream


class ImageEncoder:
    """``prepare`` is safe from any thread; the other methods belong to the engine's thread."""

    def __init__(
        self,
        projector: Projector | None,
        *,
        context_length: int,
        batch_size: int,
        on_encoded: Callable[[], None],
        max_bytes: int = CACHED_BYTES,
    ) -> None:
        """Without a projector images are refused. ``on_encoded`` is called in the encoder's thread after each chunk."""
        self._projector = projector
        self._context_length = context_length
        self._batch_size = batch_size
        self._on_encoded = on_encoded
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[str, PreparedImage] = WeakValueDictionary()
        self._kept: OrderedDict[str, tuple[PreparedImage, int]] = OrderedDict()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self.finished = 0
        """Chunks that were encoded, failed or were not needed any more."""
        self._thread = threading.Thread(target=self._run, name="image-encoder", daemon=True)
        if projector is not None:
            self._thread.start()

    @classmethod
    def of(cls, parts: EngineParts, changed: threading.Condition) -> ImageEncoder:
        """Return the encoder of an engine; it notifies ``changed`` after each chunk."""

        def notify() -> None:
            with changed:
                changed.notify()

        batch_size = parts.context.batch_capacity
        return cls(parts.projector, context_length=parts.length, batch_size=batch_size, on_encoded=notify)

    @property
    def projector(self) -> Projector:
        """Raises InvalidPrompt without one."""
        if self._projector is None:
            raise InvalidPrompt("the model has no projector, so it cannot see images")
        return self._projector

    @property
    def accepts_images(self) -> bool:
        return self._projector is not None

    @property
    def buffer_sizes(self) -> Mapping[str, int]:
        """Bytes by kind of memory."""
        return self._projector.buffer_sizes if self._projector is not None else {}

    def prepare(self, data: bytes, sha256: str) -> PreparedImage:
        """See ``Engine.prepare_image``."""
        with self._lock:
            if (known := self._known.get(sha256)) is not None:
                return known
        projector = self.projector
        pixels = decode_pixels(data)
        cells: list[int] = []
        chunks: list[ImageChunk] = []
        for part in projector.prepare(pixels.data, pixels.width, pixels.height):
            if isinstance(part, tuple):
                cells += part
                continue
            chunk = ImageChunk(sha256, chunk_cells(sha256, len(chunks), part.positions), part.rows, part)
            self._check(chunk)
            chunks.append(chunk)
            cells += chunk.cells
        image = PreparedImage(sha256, tuple(cells), tuple(chunks))
        with self._lock:
            return self._known.setdefault(sha256, image)

    def request(self, chunk: ImageChunk, stream: GenerationStream) -> None:
        """Let the chunk be encoded unless that is under way; ``stream`` is of the generation that needs it."""
        if not chunk.requested:
            chunk.requested = True
            self._requests.put(_Request(chunk, stream))

    def close(self) -> None:
        """End the thread after the current chunk and free the projector."""
        if self._projector is not None:
            self._requests.put(None)
            self._thread.join()
            self._projector.close()

    def _check(self, chunk: ImageChunk) -> None:
        """Raises InvalidPrompt for a chunk that no request can use."""
        if not chunk.cells or chunk.rows < len(chunk.cells) or len(chunk.cells) > MAX_POSITIONS:
            raise InvalidPrompt("the model cannot use the image")
        if chunk.rows >= self._context_length:
            raise InvalidPrompt(
                f"the image takes {chunk.rows} tokens of a context of {self._context_length}: scale it down, or set a "
                "longer contextLength in the Model"
            )
        if self.projector.attends_both_ways and chunk.rows > self._batch_size:
            raise InvalidPrompt(
                f"the image takes {chunk.rows} tokens, which the model reads in one batch, and a batch has "
                f"{self._batch_size}: scale it down, or set a larger num_batch in the Model's parameters"
            )

    def keep(self, chunk: ImageChunk) -> None:
        """Mark the image of an encoded chunk as the most recently used one; forget the oldest ones over the limit."""
        with self._lock:
            image = self._known.get(chunk.sha256)
            if image is not None and all(one.embeddings is not None for one in image.chunks):
                self._keep(image)

    def _keep(self, image: PreparedImage) -> None:
        size = sum(chunk.rows for chunk in image.chunks) * self.projector.embedding_size * 4
        self._kept[image.sha256] = image, size
        self._kept.move_to_end(image.sha256)
        total = sum(size for _, size in self._kept.values())
        while total > self._max_bytes:
            _, (_, size) = self._kept.popitem(last=False)
            total -= size

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            chunk = request.chunk
            if request.stream.closed:
                chunk.requested = False
            else:
                self._encode(chunk)
            self.finished += 1
            self._on_encoded()

    def _encode(self, chunk: ImageChunk) -> None:
        try:
            embeddings = self.projector.encode(chunk.source)
            chunk.source.drop_pixels()
            chunk.embeddings = embeddings
            self.keep(chunk)
        except EngineError as error:
            chunk.error = error
        except Exception as error:  # no error may end the thread
            log.exception("an image could not be encoded")
            chunk.error = EngineFailed(f"the image could not be encoded: {error}")
