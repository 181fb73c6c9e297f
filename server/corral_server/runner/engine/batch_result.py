"""Results of a decoded batch: tokens are sampled, their text goes to the streams, generations end.

Invariants:

- a failure ends only the generation that it belongs to, with an ``EngineError`` in its stream;
- a generation that ended has freed its sampler and left its slot; the cells stay for a prompt with the same beginning.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Literal

from corral_server.runner.engine.cache.kv_cache import KVCache
from corral_server.runner.engine.metrics import EngineMetrics
from corral_server.runner.engine.slots import Generation, Slot
from corral_server.runner.engine.stream import StreamItems
from corral_server.runner.llama.context import LlamaContext
from corral_server.runner.llama.errors import EngineError
from corral_server.runner.llama.model import LlamaModel

log = logging.getLogger("corral.runner.engine")


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """A slot's part of a batch: ``count`` pending tokens, then the draft; ``last_index`` is the last one's index."""

    slot: Slot
    count: int
    last_index: int


class BatchResultHandler:
    """Used by the engine's thread alone."""

    def __init__(self, model: LlamaModel, context: LlamaContext, *, cache: KVCache, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        self._model = model
        self._context = context
        self._cache = cache

    def apply(self, entry: BatchEntry, out: StreamItems) -> None:
        """Sample from a slot's part of the decoded batch; an accepted draft yields several tokens."""
        slot, generation = entry.slot, entry.slot.generation
        if generation is None:
            return
        slot.tokens += generation.pending_tokens[: entry.count]
        del generation.pending_tokens[: entry.count]
        if generation.pending_tokens:
            return
        draft, generation.draft_tokens = generation.draft_tokens, []
        first = entry.last_index - len(draft)
        accepted = 0
        while (token := self._sample(slot, generation, index=first + accepted, out=out)) is not None:
            if accepted == len(draft) or token != draft[accepted]:
                break
            slot.tokens.append(token)
            accepted += 1
        if accepted < len(draft):
            self._cache.roll_back(slot)
        if draft:
            self._metrics.record_draft(len(draft), accepted)
            if generation.lookup is not None:
                generation.lookup.record_result(len(draft), accepted)

    def finish(
        self, slot: Slot, generation: Generation, *, reason: Literal["stop", "length"], out: StreamItems
    ) -> None:
        """Send the rest of the text and the result."""
        last = generation.last_chunk()
        if last is not None:
            out.append((generation.stream, last))
        out.append((generation.stream, generation.result(reason)))
        self._metrics.finished[reason] += 1
        self.release(slot)

    def fail(self, slot: Slot, error: EngineError, out: StreamItems) -> None:
        """End the slot's generation with the error and free its cells, whose content is unknown."""
        log.warning("a generation failed: %s", error)
        if slot.generation is not None:
            self._metrics.finished["failed"] += 1
            out.append((slot.generation.stream, error))
        self.release(slot)
        self._cache.clear_slot(slot)

    def release(self, slot: Slot) -> None:
        """Remove the generation from the slot."""
        generation, slot.generation = slot.generation, None
        if generation is not None:
            generation.sampler.close()

    def _sample(self, slot: Slot, generation: Generation, *, index: int, out: StreamItems) -> int | None:
        """Return the next token from the logits of batch entry ``index``; None when the generation ended."""
        try:
            token = generation.sampler.sample(self._context, index)
        except EngineError as error:
            self.fail(slot, error, out)
            return None
        if not generation.generated_tokens:
            self._metrics.cached_tokens += generation.cached_tokens
        self._metrics.generated_tokens += 1
        generation.append(token)
        if self._model.is_end_of_generation(token):
            self.finish(slot, generation, reason="stop", out=out)
            return None
        visible = token in generation.task.visible_control_tokens
        chunk = generation.next_chunk(
            self._model.token_bytes(token, special=visible), partial(self._context.logits, index)
        )
        if chunk is not None:
            out.append((generation.stream, chunk))
        if generation.text.stopped:
            self.finish(slot, generation, reason="stop", out=out)
        elif len(generation.generated_tokens) >= generation.max_tokens:
            self.finish(slot, generation, reason="length", out=out)
        return token if slot.generation is not None else None
