"""The slots' cells and llama.cpp's memory, changed together.

What always holds: between steps ``Slot.cells`` are exactly the tokens whose keys and values llama.cpp holds for the
slot's sequence, also after a batch that failed half-way and for memory that cannot forget a part (recurrent models).
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.compaction import moves
from corral_server.runner.llama import LlamaContext
from corral_server.runner.prefix import Source, find_source
from corral_server.runner.sequence import Slot
from corral_server.runner.window import shift_of


class SlotMemory:
    """Used by the engine's thread alone. ``length`` is the window of one slot in tokens.

    Only what ``rewinds`` can share a part of its cells, or forget a draft.
    """

    def __init__(self, context: LlamaContext, slots: Sequence[Slot], *, length: int, rewinds: bool = True) -> None:
        self._context = context
        self._slots = slots
        self.length = length
        self.rewinds = rewinds

    @property
    def can_shift(self) -> bool:
        return self._context.can_shift

    @property
    def cells_in_use(self) -> int:
        """As llama.cpp counts them, those that idle slots keep for later included."""
        return sum(self._context.cells(slot.sequence) for slot in self._slots)

    def forget(self, slot: Slot) -> None:
        """Gives all of the slot's cells back."""
        self._context.remove(slot.sequence)
        slot.hold([])

    def forget_idle(self) -> None:
        """Gives back what idle slots keep for prompts that begin the same."""
        for slot in self._slots:
            if slot.generation is None and slot.cells:
                self.forget(slot)

    def clear(self) -> None:
        self._context.clear()
        for slot in self._slots:
            slot.hold([])

    def keep(self, slot: Slot, length: int) -> int:
        """Forgets all but the first ``length`` reusable cells; returns how many are left, for a new generation.

        None are when it must be all or none.
        """
        if self._context.remove(slot.sequence, length):
            slot.hold(slot.reusable[:length])
        else:
            self.forget(slot)
        return len(slot.cells)

    def restore(self, slot: Slot) -> None:
        """Forgets what a failed batch or a refused draft left behind ``cells``."""
        cells, generation = slot.cells, slot.generation
        if self._context.remove(slot.sequence, len(cells)):
            return
        self.forget(slot)
        if generation is not None:
            generation.pending = cells + generation.pending

    def shift(self, slot: Slot, keep: int) -> None:
        """Makes room in a full window: the older half of what follows the kept tokens goes."""
        shift = shift_of(len(slot.cells), keep, context=self.length)
        self._context.remove(slot.sequence, shift.start, shift.end)
        self._context.move(slot.sequence, shift.end, len(slot.cells), -shift.size)
        del slot.cells[shift.start : shift.end]
        slot.shifted = min(shift.start, len(slot.reusable))

    def source(self, slot: Slot, prompt: Sequence[int]) -> Source | None:
        """Where the slot's generation may get the beginning of its prompt: never from one that began after it."""
        if not self.rewinds:
            return None
        alike = [
            other
            for other in self._slots
            if other.adapter == slot.adapter and (other.generation is None or other.used < slot.used)
        ]
        return find_source(slot, prompt, alike, length=self.length)

    def inherit(self, slot: Slot, source: Source) -> int:
        """Copies the source's beginning in place of what the slot has; returns how many cells the slot has then."""
        tokens = source.slot.reusable[: source.length]
        if self._context.copy(source.slot.sequence, slot.sequence, source.length):
            slot.hold(tokens)
        else:
            self.forget(slot)
        return len(slot.cells)

    def compact(self) -> None:
        """Closes gaps between the running slots where that pays."""
        for source, target in moves(self._slots):
            if not self._context.copy(source.sequence, target.sequence, len(source.cells)):
                target.hold([])
                return
            target.cells, target.generation, target.used = source.cells, source.generation, source.used
            target.adapter, target.shifted = source.adapter, source.shifted
            source.generation = None
            self.forget(source)
