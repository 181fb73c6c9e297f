"""Decoding of encoded images into the KV cache: in each step a piece of one image, beside the batch of tokens.

llama.cpp's batches have either tokens or embeddings, so an image has batches of its own. Their sizes follow the prefill
budget, so the streams wait no longer for an image than for a prompt.

Invariants:

- the cells of a row join ``Slot.tokens`` when the KV cache holds it. Two kinds of models take an image as a whole: with
  M-RoPE its rows have fewer positions than rows, and with attention in both directions all rows are in one batch. There
  the cells join with the last row, and earlier rows are removed when the generation leaves its slot;
- the image of the generation that is longest in its slot is first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from corral_server.runner.engine.cache.kv_cache import KVCache
from corral_server.runner.engine.prefill_budget import PrefillBudget
from corral_server.runner.engine.prepared_image import ImageChunk
from corral_server.runner.engine.slots import Slot
from corral_server.runner.engine.vision.encoder import ImageEncoder
from corral_server.runner.llama.context import NO_ROOM, LlamaContext
from corral_server.runner.llama.errors import EngineFailed


class ImageDecoder:
    """Used by the engine's thread alone."""

    def __init__(self, context: LlamaContext, encoder: ImageEncoder, *, cache: KVCache, budget: PrefillBudget) -> None:
        self._context = context
        self._encoder = encoder
        self._cache = cache
        self._budget = budget

    def next_slot(self, slots: Sequence[Slot]) -> Slot | None:
        """Request the encoding of all images that are next in their slots; return the first slot with one to decode."""
        waiting = [slot for slot in slots if next_image(slot) is not None]
        ready = []
        for slot in sorted(waiting, key=lambda slot: slot.generation.started_ns if slot.generation else 0):
            generation, found = slot.generation, next_image(slot)
            if generation is None or found is None:
                continue
            if found[0].is_ready:
                ready.append(slot)
            else:
                self._encoder.request(found[0], generation.stream)
        return ready[0] if ready else None

    def decode(self, slot: Slot, *, streaming: bool) -> tuple[int, float]:
        """Decode rows of the image that is next in the slot; return their number and the seconds.

        Raises EngineFailed, after which the slot's cells are unknown, and the error of the encoding.
        """
        generation, found = slot.generation, next_image(slot)
        if generation is None or generation.images is None or found is None:
            return 0, 0.0
        chunk, index = found
        if chunk.error is not None:
            raise chunk.error
        whole = self._encoder.projector.uses_mrope or self._encoder.projector.attends_both_ways
        first = generation.images.rows_done if whole else index
        count = self._count(chunk, first, streaming=streaming)
        start = time.perf_counter()
        status = self._decode_rows(slot, chunk, first, count)
        if status == NO_ROOM:
            self._cache.clear_idle_slots()
            status = self._decode_rows(slot, chunk, first, count)
        if status:
            raise EngineFailed(f"llama.cpp could not decode an image (status {status})")
        done = not whole or first + count == chunk.rows
        generation.images.rows_done = 0 if done else first + count
        if done:
            cells = len(chunk.cells) if whole else count
            slot.tokens += generation.pending_tokens[:cells]
            del generation.pending_tokens[:cells]
            self._encoder.keep(chunk)
        return count, time.perf_counter() - start

    def _count(self, chunk: ImageChunk, first: int, *, streaming: bool) -> int:
        if self._encoder.projector.attends_both_ways:
            return chunk.rows
        return min(chunk.rows - first, self._budget.tokens_per_step(streaming=streaming))

    def _decode_rows(self, slot: Slot, chunk: ImageChunk, first: int, count: int) -> int:
        projector = self._encoder.projector
        start = len(slot.tokens)
        if projector.uses_mrope:
            sections = [section[first : first + count] for section in chunk.source.grid(start)]
        else:
            sections = [tuple(range(start, start + count))]
        return self._context.decode_embeddings(
            slot.sequence,
            sections,
            chunk.embeddings,
            first=first,
            size=projector.embedding_size,
            causal=not projector.attends_both_ways,
        )


def next_image(slot: Slot) -> tuple[ImageChunk, int] | None:
    """Return the image that is next in a slot, and which of its cells; None where a token is next."""
    generation = slot.generation
    if generation is None or generation.images is None or generation.prefix_source is not None:
        return None
    return generation.images.head(generation.pending_tokens)
