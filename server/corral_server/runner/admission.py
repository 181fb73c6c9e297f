"""Who gets a free slot, which one, and what of the prompt is there already.

What always holds: the oldest task comes first; one whose reader has left or that is to generate nothing takes no slot.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.memory import SlotMemory
from corral_server.runner.sequence import Generation, Slot, choose_slot
from corral_server.runner.stream import deliver


class Admission:
    """Used by the engine's thread alone."""

    def __init__(self, slots: Sequence[Slot], memory: SlotMemory) -> None:
        self._slots = slots
        self._memory = memory
        self._uses = 0

    def admit(self, generation: Generation) -> None:
        """Gives a slot to the generation, which is the oldest that waits; there is an idle one."""
        if generation.stream.closed:
            generation.chooser.close()
        elif generation.limit == 0:
            deliver([(generation.stream, generation.finish("length"))])
            generation.chooser.close()
        else:
            self._start(generation)

    def idle(self) -> bool:
        """Whether a slot is free."""
        return any(slot.generation is None for slot in self._slots)

    def _start(self, generation: Generation) -> None:
        prompt = generation.prompt
        idle = [slot for slot in self._slots if slot.generation is None]
        running = {slot.sequence for slot in self._slots if slot.generation is not None}
        adapter = generation.task.adapter
        slot, shared = choose_slot(idle, prompt, running=running, adapter=adapter)
        slot.generation = generation  # from here on it is told when anything fails
        if slot.adapter != adapter:
            self._memory.forget(slot)
            slot.adapter = adapter
        self._uses += 1
        slot.used = self._uses
        source = self._memory.source(slot, prompt)
        shared = min(shared, len(prompt) - 1)  # the last token is decoded again: its logits are needed
        if source is not None and source.ready(prompt):
            generation.start(self._memory.inherit(slot, source))
        else:
            generation.start(self._memory.keep(slot, shared))
            generation.source = source
