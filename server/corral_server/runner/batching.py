"""One step of the engine: one batch over all running generations, one decode, one sampled token each.

Generating sequences take one token each, and what is left of the batch goes to the prompts in the order they came, held
to what is read in a moment, so running streams flow while prompts are read. What always holds: a failure in a step ends
only the generations it concerns, with an EngineError in their streams; their cells are forgotten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial

from corral_server.runner.generation import EngineError, EngineFailed
from corral_server.runner.llama import LlamaContext, LlamaModel
from corral_server.runner.pace import Pace
from corral_server.runner.sequence import Generation, Slot
from corral_server.runner.stream import Delivery
from corral_server.runner.window import shift_of

log = logging.getLogger("corral.runner.engine")

_NO_ROOM = 1


class Stepper:
    """Owns the context for the time of a step; used by the engine's thread alone."""

    def __init__(self, model: LlamaModel, context: LlamaContext, slots: Sequence[Slot], *, length: int) -> None:
        self._model = model
        self._context = context
        self._slots = slots
        self._length = length
        self._pace = Pace(context.capacity)

    def step(self) -> Delivery:
        """Runs one batch over every slot that has a generation; returns what the streams are to get."""
        out: Delivery = []
        running = [slot for slot in self._slots if slot.generation is not None]
        for slot in running:
            self._drop_if_closed(slot)
            self._make_room(slot, out)
        self._run([slot for slot in running if slot.generation is not None], out)
        return out

    def forget(self, slot: Slot) -> None:
        """Gives the slot's cells back."""
        self._context.remove(slot.sequence)
        slot.cells.clear()

    def end(self, slot: Slot) -> None:
        """Takes the generation out of the slot; the cells stay for a prompt that begins the same."""
        if slot.generation is not None:
            slot.generation.chooser.close()
        slot.generation = None

    def _drop_if_closed(self, slot: Slot) -> None:
        if slot.generation is not None and slot.generation.stream.closed:
            self.end(slot)

    def _make_room(self, slot: Slot, out: Delivery) -> None:
        """A full window is shifted or ends the generation."""
        generation = slot.generation
        if generation is None or len(slot.cells) + 1 <= self._length:
            return
        if not generation.task.shift or not self._context.can_shift:
            self._finish(slot, generation, "length", out)
            return
        shift = shift_of(len(slot.cells), generation.keep, context=self._length)
        self._context.remove(slot.sequence, shift.start, shift.end)
        self._context.move(slot.sequence, shift.end, len(slot.cells), -shift.size)
        del slot.cells[shift.start : shift.end]

    def _run(self, slots: Sequence[Slot], out: Delivery) -> None:
        """Decodes as one batch; when that fails, one by one, so that only the guilty ones fail."""
        if not slots:
            return
        taken = self._fill(slots)
        start = time.perf_counter()
        status = self._decode()
        self._pace.note(sum(count for _, count, _ in taken), time.perf_counter() - start)
        if status == 0:
            self._advance(taken, out)
        elif len(taken) > 1:
            for slot, _, _ in taken:
                self._restore(slot)
                self._run([slot], out)
        else:
            self._fail(taken[0][0], EngineFailed(f"llama.cpp could not decode the batch (status {status})"), out)

    def _fill(self, slots: Sequence[Slot]) -> list[tuple[Slot, int, int]]:
        """Puts tokens into the batch; returns for each slot how many and the index of its last."""
        counts = self._shares(slots)
        self._context.clear_batch()
        taken = []
        for slot in sorted(counts, key=lambda slot: slot.sequence):  # llama.cpp joins only neighbouring sequences
            generation, count = slot.generation, counts[slot]
            if generation is not None:
                final = count == len(generation.pending)
                last = self._context.add(slot.sequence, len(slot.cells), generation.pending[:count], output=final)
                taken.append((slot, count, last))
        return taken

    def _shares(self, slots: Sequence[Slot]) -> dict[Slot, int]:
        """How many tokens each slot may put into the batch; one for each running stream, prompts share the rest."""
        waiting = {slot: slot.generation for slot in slots if slot.generation is not None}
        shares = {slot: 1 for slot, generation in waiting.items() if len(generation.pending) == 1}
        room = min(self._context.capacity - len(shares), self._pace.allowance(streaming=bool(shares)))
        for slot, generation in sorted(waiting.items(), key=lambda entry: entry[1].began):
            if slot not in shares and room > 0:
                shares[slot] = min(len(generation.pending), room)
                room -= shares[slot]
        return shares

    def _decode(self) -> int:
        """When the cache has no room the caches of idle slots go first."""
        status = self._context.decode()
        if status == _NO_ROOM:
            for slot in self._slots:
                if slot.generation is None and slot.cells:
                    self.forget(slot)
            status = self._context.decode()
        return status

    def _restore(self, slot: Slot) -> None:
        """After a failed decode some of the batch may be in the memory: back to what ``cells`` say."""
        if not self._context.remove(slot.sequence, len(slot.cells)):
            self._reread(slot)

    def _reread(self, slot: Slot) -> None:
        """Memory that cannot forget a part is filled again from the start."""
        generation = slot.generation
        self._context.remove(slot.sequence)
        if generation is not None:
            generation.pending = slot.cells + generation.pending
        slot.cells = []

    def _advance(self, taken: Iterable[tuple[Slot, int, int]], out: Delivery) -> None:
        for slot, count, last in taken:
            generation = slot.generation
            if generation is None:
                continue
            slot.cells += generation.pending[:count]
            del generation.pending[:count]
            if not generation.pending:
                self._sample(slot, generation, last, out)

    def _sample(self, slot: Slot, generation: Generation, index: int, out: Delivery) -> None:
        try:
            token = generation.chooser.choose(self._context, index)
        except EngineError as error:
            self._fail(slot, error, out)
            return
        generation.sampled(token)
        if self._model.ends(token):
            self._finish(slot, generation, "stop", out)
            return
        data = self._model.piece(token, special=token in generation.task.shown)
        piece = generation.said(data, partial(self._context.logits, index))
        if piece is not None:
            out.append((generation.stream, piece))
        if generation.text.stopped:
            self._finish(slot, generation, "stop", out)
        elif len(generation.generated) >= generation.limit:
            self._finish(slot, generation, "length", out)

    def _finish(self, slot: Slot, generation: Generation, reason: str, out: Delivery) -> None:
        rest = generation.rest()
        if rest is not None:
            out.append((generation.stream, rest))
        out.append((generation.stream, generation.finish("stop" if reason == "stop" else "length")))
        self.end(slot)

    def _fail(self, slot: Slot, error: EngineError, out: Delivery) -> None:
        log.warning("a generation failed: %s", error)
        if slot.generation is not None:
            out.append((slot.generation.stream, error))
        self.end(slot)
        self.forget(slot)
