"""Admission: gives idle slots to queued generations and reuses what the slots hold of their prompts.

Invariants:

- the oldest generation comes first;
- a cancelled generation and one that generates no token take no slot.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.engine.cache.kv_cache import KVCache
from corral_server.runner.engine.cache.prefix_cache import choose_slot
from corral_server.runner.engine.slots import Generation, Slot
from corral_server.runner.engine.stream import deliver


class Admission:
    """Used by the engine's thread alone."""

    def __init__(self, slots: Sequence[Slot], cache: KVCache) -> None:
        self._slots = slots
        self._cache = cache
        self._assignments = 0

    @property
    def has_idle_slot(self) -> bool:
        return any(slot.generation is None for slot in self._slots)

    def admit(self, generation: Generation) -> None:
        """Assign a slot to the oldest queued generation; requires an idle slot."""
        if generation.stream.closed:
            generation.sampler.close()
        elif generation.max_tokens == 0:
            deliver([(generation.stream, generation.result("length"))])
            generation.sampler.close()
        else:
            self._assign_slot(generation)

    def _assign_slot(self, generation: Generation) -> None:
        prompt, adapter = generation.prompt, generation.task.adapter
        idle = [slot for slot in self._slots if slot.generation is None]
        running = {slot.sequence for slot in self._slots if slot.generation is not None}
        slot, shared = choose_slot(idle, prompt, running=running, adapter=adapter)
        slot.generation = generation  # first of all: any later error is reported to the generations that have a slot
        if slot.adapter != adapter:
            self._cache.clear_slot(slot)
            slot.adapter = adapter
        self._assignments += 1
        slot.last_used = self._assignments
        source = self._cache.find_prefix(slot, prompt)
        shared = min(shared, len(prompt) - 1)  # the last token is decoded again, because its logits are needed
        if source is not None and source.is_ready(prompt):
            generation.start(self._cache.copy_prefix(slot, source))
        else:
            generation.start(self._cache.truncate(slot, shared))
            generation.prefix_source = source
