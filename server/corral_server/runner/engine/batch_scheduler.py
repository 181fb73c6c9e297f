"""Batch scheduler: each step is one batch over all running generations and one decode (continuous batching).

Running streams contribute one token each and their drafts. The rest of the batch goes to the prompts in the order of
their arrival, within the prefill budget, so streams continue while prompts are computed.

Invariants:

- a batch that fails is decoded again slot by slot, so only the slots that cause the failure fail;
- an error while one slot is prepared, or while its result is handled, ends that slot's generation and no other;
- items belong to the caller's list as soon as they exist, so an error later in the step loses none of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from corral_server.runner.engine.adapter_turns import AdapterTurns
from corral_server.runner.engine.batch_result import BatchEntry, BatchResultHandler
from corral_server.runner.engine.cache.kv_cache import KVCache
from corral_server.runner.engine.metrics import EngineMetrics
from corral_server.runner.engine.prefill_budget import PrefillBudget
from corral_server.runner.engine.slots import Generation, Slot
from corral_server.runner.engine.speculation import propose_drafts
from corral_server.runner.engine.stream import DeliveryBuffer, StreamItems
from corral_server.runner.engine.vision.encoder import ImageEncoder
from corral_server.runner.engine.vision.image_decoder import ImageDecoder, next_image
from corral_server.runner.llama.context import NO_ROOM, LlamaContext
from corral_server.runner.llama.errors import EngineError, EngineFailed
from corral_server.runner.llama.model import LlamaModel, LoraAdapter

log = logging.getLogger("corral.runner.engine")


class BatchScheduler:
    """Owns the context for the time of a step; used by the engine's thread alone."""

    def __init__(
        self,
        model: LlamaModel,
        context: LlamaContext,
        *,
        cache: KVCache,
        slots: Sequence[Slot],
        draft_tokens: int,
        adapters: Mapping[str, LoraAdapter],
        buffer: DeliveryBuffer,
        encoder: ImageEncoder | None = None,
    ) -> None:
        """``draft_tokens`` of each stream at most are decoded speculatively. ``buffer`` is flushed at each decode.

        A task has images only with an ``encoder``.
        """
        self._buffer = buffer
        self._adapter_turns = AdapterTurns(context, adapters)
        self._context = context
        self._cache = cache
        self._slots = slots
        self._draft_tokens = draft_tokens
        self.metrics = EngineMetrics()
        self._results = BatchResultHandler(model, context, cache=cache, metrics=self.metrics)
        self.prefill_budget = PrefillBudget(context.batch_capacity)
        self._images = ImageDecoder(context, encoder, cache=cache, budget=self.prefill_budget) if encoder else None
        self.decoded = False
        """Whether the last step decoded anything; otherwise all generations wait for images that are being encoded."""

    def step(self, out: StreamItems) -> None:
        """Decode one batch over the slots with a generation; append the items for the streams to ``out``.

        When it raises, ``out`` has the items so far, among them the results of generations that have left their slots.
        """
        for slot in self._running():
            self._isolate(slot, self._drop_if_cancelled, out)
            self._isolate(slot, self._end_at_limit, out)
            self._isolate(slot, self._make_room, out)
        self._cache.compact()
        for slot in self._running():
            self._isolate(slot, self._copy_prefix, out)
        selected = self._adapter_turns.select(self._running())
        rows = self._decode_image(selected, out) if self._images is not None else 0
        self.decoded = self._decode_slots(selected, out, rows=rows) or rows > 0

    def release(self, slot: Slot) -> None:
        """Remove the generation from the slot."""
        self._results.release(slot)

    def fail(self, slot: Slot, error: EngineError, out: StreamItems) -> None:
        """End the slot's generation with the error and free its cells."""
        self._results.fail(slot, error, out)

    def _isolate(self, slot: Slot, handle: Callable[[Slot, StreamItems], None], out: StreamItems) -> None:
        """Call ``handle`` for the slot; an error ends its generation and does not reach the other slots."""
        try:
            handle(slot, out)
        except Exception as error:
            log.exception("slot %d could not be handled", slot.sequence)
            self._results.fail(slot, EngineFailed(f"the engine failed: {error}"), out)

    def _running(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.generation is not None]

    def _drop_if_cancelled(self, slot: Slot, _out: StreamItems) -> None:
        if slot.generation is not None and slot.generation.stream.closed:
            self._drop_started_image(slot)
            self.metrics.finished["cancelled"] += 1
            self.release(slot)

    def _end_at_limit(self, slot: Slot, out: StreamItems) -> None:
        if slot.generation is not None and slot.generation.is_over_time:
            self._drop_started_image(slot)
            self._results.finish(slot, slot.generation, reason="length", out=out)

    def _make_room(self, slot: Slot, out: StreamItems) -> None:
        """Shift a full context, or end the generation."""
        generation = slot.generation
        if generation is None or len(slot.tokens) + generation.extra_cells + 1 <= generation.context_length:
            return
        if generation.task.context_shift and self._cache.can_shift and generation.images is None:
            self._cache.shift(slot, generation.keep, length=generation.context_length)
        else:
            self._results.finish(slot, generation, reason="length", out=out)

    def _copy_prefix(self, slot: Slot, _out: StreamItems) -> None:
        """Copy the start of a waiting prompt as soon as another slot holds it.

        When that slot's generation ended before, its cells so far are copied, or those of another slot.
        """
        generation = slot.generation
        if generation is None or generation.prefix_source is None:
            return
        if not (generation.prefix_source.is_ready(generation.prompt) or generation.prefix_source.is_pending):
            generation.prefix_source = self._cache.find_prefix(slot, generation.prompt)
        if generation.prefix_source is not None and generation.prefix_source.is_ready(generation.prompt):
            generation.use_cached_prefix(self._cache.copy_prefix(slot, generation.prefix_source))

    def _drop_started_image(self, slot: Slot) -> None:
        """Remove the cells of an image that is decoded only in part."""
        if slot.generation is not None and slot.generation.images is not None and slot.generation.images.rows_done:
            self._cache.roll_back(slot)

    def _decode_image(self, slots: Sequence[Slot], out: StreamItems) -> int:
        """Decode a piece of an image that is encoded; return the number of its rows."""
        assert self._images is not None, "called with an encoder"
        slot = self._images.next_slot(slots)
        if slot is None:
            return 0
        self._buffer.flush()
        try:
            rows, seconds = self._images.decode(slot, streaming=any(_is_streaming(slot) for slot in self._slots))
        except Exception as error:
            failed = error if isinstance(error, EngineError) else EngineFailed(f"the engine failed: {error}")
            self._results.fail(slot, failed, out)
            return 0
        self.prefill_budget.record_step(rows, seconds)
        self.metrics.record_step(1, rows, prompt_tokens=rows, seconds=seconds)
        return rows

    def _decode_slots(self, slots: Sequence[Slot], out: StreamItems, *, rows: int = 0) -> bool:
        """Decode the slots as one batch; when that fails, one by one. Return whether there was something to decode.

        ``rows`` of an image were decoded before in the same step.
        """
        entries = self._fill_batch(slots, rows=rows)
        if not entries:
            return False
        self._buffer.flush()
        start = time.perf_counter()
        status = self._decode()
        if status == 0:
            self._record_step(entries, time.perf_counter() - start)
            for entry in entries:
                self._isolate(entry.slot, partial(self._apply, entry), out)
        elif len(entries) > 1:
            for entry in entries:
                self._cache.roll_back(entry.slot)
                self._decode_slots([entry.slot], out)
        else:
            error = EngineFailed(f"llama.cpp could not decode the batch (status {status})")
            self._results.fail(entries[0].slot, error, out)
        return True

    def _record_step(self, entries: Sequence[BatchEntry], seconds: float) -> None:
        """Record a decoded batch. A failed one is no measure of the speed: it may return at once."""
        tokens = sum(entry.count for entry in entries)
        prompt_tokens = sum(entry.count for entry in entries if _is_prefill(entry.slot))
        self.prefill_budget.record_step(tokens, seconds)
        self.metrics.record_step(len(entries), tokens, prompt_tokens=prompt_tokens, seconds=seconds)

    def _apply(self, entry: BatchEntry, _slot: Slot, out: StreamItems) -> None:
        self._results.apply(entry, out)

    def _fill_batch(self, slots: Sequence[Slot], *, rows: int) -> list[BatchEntry]:
        counts = self._allocate_tokens(slots, rows=rows)
        self._context.clear_batch()
        entries = []
        for slot in sorted(counts, key=lambda slot: slot.sequence):  # llama.cpp joins only consecutive sequences
            generation, count = slot.generation, counts[slot]
            if generation is not None:
                final = count == len(generation.pending_tokens)
                tokens = generation.pending_tokens[:count] + (generation.draft_tokens if final else [])
                outputs = 1 + len(generation.draft_tokens) if final else 0
                last_index = self._context.add_tokens(slot.sequence, len(slot.tokens), tokens, outputs=outputs)
                entries.append(BatchEntry(slot, count, last_index))
        return entries

    def _allocate_tokens(self, slots: Sequence[Slot], *, rows: int) -> dict[Slot, int]:
        """Return how many tokens each slot puts into the batch: one for each stream, the rest for the prompts.

        The ``rows`` of an image in the same step count as tokens of a prompt.
        """
        ready = {slot: generation for slot in slots if (generation := _schedulable_generation(slot)) is not None}
        shares = {slot: 1 for slot, generation in ready.items() if len(generation.pending_tokens) == 1}
        room = self._context.batch_capacity - len(shares)
        if self._draft_tokens and shares:
            room -= self._propose_drafts([slot for slot in shares if ready[slot].generated_tokens], room)
        streaming = any(_is_streaming(slot) for slot in self._slots)
        room = min(room, self.prefill_budget.tokens_per_step(streaming=streaming) - rows)
        for slot, generation in sorted(ready.items(), key=lambda entry: entry[1].started_ns):
            if slot not in shares and room > 0:
                shares[slot] = min(generation.pending_text, room)
                room -= shares[slot]
        return shares

    def _propose_drafts(self, streams: Sequence[Slot], room: int) -> int:
        """Set the drafts of the streams; return the number of their tokens."""
        propose_drafts(streams, max_tokens=self._draft_tokens, room=room)
        return sum(len(slot.generation.draft_tokens) for slot in streams if slot.generation is not None)

    def _decode(self) -> int:
        """Decode the batch; when the cache has no room, free the cells of the idle slots and try again."""
        status = self._context.decode()
        if status == NO_ROOM:
            self._cache.clear_idle_slots()
            status = self._context.decode()
        return status


def _is_streaming(slot: Slot) -> bool:
    """Whether the slot's stream waits for its next token, in this batch or in one of another adapter."""
    return slot.generation is not None and len(slot.generation.pending_tokens) == 1


def _is_prefill(slot: Slot) -> bool:
    return slot.generation is not None and not slot.generation.generated_tokens


def _schedulable_generation(slot: Slot) -> Generation | None:
    """Return the slot's generation when it has tokens to decode and waits neither for a prefix nor for an image."""
    generation = slot.generation
    if generation is None or generation.prefix_source is not None or next_image(slot) is not None:
        return None
    return generation
