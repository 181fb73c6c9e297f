"""One step of the engine: one batch over all running generations, and one decode.

Generating sequences take one token each (and their drafts), and what is left of the batch goes to the prompts in the
order they came, held to what is read in a moment, so running streams flow while prompts are read. What always holds: a
batch that fails is decoded again slot by slot, so that only the guilty ones fail.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from corral_server.runner.generation import EngineFailed
from corral_server.runner.llama import Adapter, LlamaContext, LlamaModel
from corral_server.runner.measures import EngineMeasures
from corral_server.runner.memory import SlotMemory
from corral_server.runner.outcome import Outcome, Taken
from corral_server.runner.pace import Pace
from corral_server.runner.sequence import Generation, Slot
from corral_server.runner.speculation import propose
from corral_server.runner.stream import Delivery, Outbox
from corral_server.runner.turns import Turns

_NO_ROOM = 1


class Stepper:
    """Owns the context for the time of a step; used by the engine's thread alone."""

    def __init__(
        self,
        model: LlamaModel,
        context: LlamaContext,
        memory: SlotMemory,
        *,
        slots: Sequence[Slot],
        draft: int = 0,
        adapters: Mapping[str, Adapter] = {},
        out: Outbox | None = None,
    ) -> None:
        """``draft`` tokens of each stream at most are decoded on speculation. ``out`` is sent before each decode."""
        self._out = out or Outbox()
        self._turns = Turns(context, adapters)
        self._context = context
        self._memory = memory
        self._slots = slots
        self._draft = draft
        self.measures = EngineMeasures()
        self._outcome = Outcome(model, context, memory, self.measures)
        self._pace = Pace(context.capacity)

    def step(self) -> Delivery:
        """Runs one batch over every slot that has a generation; returns what the streams are to get."""
        out: Delivery = []
        for slot in self._running():
            self._drop_if_closed(slot)
            self._make_room(slot, out)
        self._memory.compact()
        running = self._running()
        for slot in running:
            self._inherit(slot)
        self._run(self._turns.of(running), out)
        return out

    def end(self, slot: Slot) -> None:
        """Takes the generation out of the slot."""
        self._outcome.end(slot)

    def _running(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.generation is not None]

    def _drop_if_closed(self, slot: Slot) -> None:
        if slot.generation is not None and slot.generation.stream.closed:
            self.measures.ended["cancelled"] += 1
            self.end(slot)

    def _make_room(self, slot: Slot, out: Delivery) -> None:
        """A full window is shifted or ends the generation."""
        generation = slot.generation
        if generation is None or len(slot.cells) + 1 <= self._memory.length:
            return
        if generation.task.shift and self._memory.can_shift:
            self._memory.shift(slot, generation.keep)
        else:
            self._outcome.finish(slot, generation, "length", out)

    def _inherit(self, slot: Slot) -> None:
        """A prompt whose beginning is elsewhere gets it as soon as it is there.

        When it never comes, because its reader left, what that one has read is taken over, or what others have.
        """
        generation = slot.generation
        if generation is None or generation.source is None:
            return
        if not (generation.source.ready(generation.prompt) or generation.source.coming):
            generation.source = self._memory.source(slot, generation.prompt)
        if generation.source is not None and generation.source.ready(generation.prompt):
            generation.inherit(self._memory.inherit(slot, generation.source))

    def _run(self, slots: Sequence[Slot], out: Delivery) -> None:
        """Decodes as one batch; when that fails, one by one, so that only the guilty ones fail."""
        taken = self._fill(slots)
        if not taken:
            return
        self._out.send()
        start = time.perf_counter()
        status = self._decode()
        seconds = time.perf_counter() - start
        self._pace.note(sum(part.count for part in taken), seconds)
        if status == 0:
            self.measures.stepped(taken, seconds)
            for part in taken:
                self._outcome.advance(part, out)
        elif len(taken) > 1:
            for part in taken:
                self._memory.restore(part.slot)
                self._run([part.slot], out)
        else:
            error = EngineFailed(f"llama.cpp could not decode the batch (status {status})")
            self._outcome.fail(taken[0].slot, error, out)

    def _fill(self, slots: Sequence[Slot]) -> list[Taken]:
        """Puts tokens into the batch."""
        counts = self._shares(slots)
        self._context.clear_batch()
        taken = []
        for slot in sorted(counts, key=lambda slot: slot.sequence):  # llama.cpp joins only neighbouring sequences
            generation, count = slot.generation, counts[slot]
            if generation is not None:
                final = count == len(generation.pending)
                tokens = generation.pending[:count] + (generation.draft if final else [])
                outputs = 1 + len(generation.draft) if final else 0
                last = self._context.add(slot.sequence, len(slot.cells), tokens, outputs=outputs)
                taken.append(Taken(slot, count, last))
        return taken

    def _shares(self, slots: Sequence[Slot]) -> dict[Slot, int]:
        """How many tokens each slot may put into the batch; one for each running stream, prompts share the rest."""
        ready = {slot: generation for slot in slots if (generation := _reading(slot)) is not None}
        shares = {slot: 1 for slot, generation in ready.items() if len(generation.pending) == 1}
        room = self._context.capacity - len(shares)
        if self._draft and shares:
            room -= self._speculate([slot for slot in shares if ready[slot].generated], room)
        room = min(room, self._pace.allowance(streaming=any(_streams(slot) for slot in self._slots)))
        for slot, generation in sorted(ready.items(), key=lambda entry: entry[1].began):
            if slot not in shares and room > 0:
                shares[slot] = min(len(generation.pending), room)
                room -= shares[slot]
        return shares

    def _speculate(self, streams: Sequence[Slot], room: int) -> int:
        """Drafts for the streams; returns how many tokens they are."""
        propose(streams, most=self._draft, room=room, length=self._memory.length)
        return sum(len(slot.generation.draft) for slot in streams if slot.generation is not None)

    def _decode(self) -> int:
        """When the cache has no room the caches of idle slots go first."""
        status = self._context.decode()
        if status == _NO_ROOM:
            self._memory.forget_idle()
            status = self._context.decode()
        return status


def _streams(slot: Slot) -> bool:
    """Whether a reader of the slot's stream waits for the next token, in this batch or in another adapter's."""
    return slot.generation is not None and len(slot.generation.pending) == 1


def _reading(slot: Slot) -> Generation | None:
    """The slot's generation when it has something to decode, and does not wait for a beginning."""
    return slot.generation if slot.generation is not None and slot.generation.source is None else None
