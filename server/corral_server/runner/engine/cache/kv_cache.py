"""KV cache: the tokens of the slots and llama.cpp's memory, changed together.

Invariant: between steps ``Slot.tokens`` are exactly the tokens whose keys and values llama.cpp holds for the slot's
sequence; also after a batch that failed half-way, and for memory that cannot remove a part of a sequence (recurrent
models).
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.engine.cache.compaction import plan_moves
from corral_server.runner.engine.cache.context_shift import compute_shift
from corral_server.runner.engine.cache.prefix_cache import find_prefix_source
from corral_server.runner.engine.slots import PrefixSource, Slot
from corral_server.runner.llama.context import LlamaContext


class KVCache:
    """Used by the engine's thread alone. ``length`` is the context length of one slot.

    Without ``can_truncate`` no part of a sequence can be shared or rolled back.
    """

    def __init__(self, context: LlamaContext, slots: Sequence[Slot], *, length: int, can_truncate: bool) -> None:
        self._context = context
        self._slots = slots
        self.length = length
        self.can_truncate = can_truncate

    @property
    def can_shift(self) -> bool:
        return self._context.can_shift

    @property
    def cells_used(self) -> int:
        """Cells that llama.cpp holds, including those of idle slots."""
        return sum(self._context.count_cells(slot.sequence) for slot in self._slots)

    def clear_slot(self, slot: Slot) -> None:
        self._context.remove_cells(slot.sequence)
        slot.set_tokens([])

    def clear_idle_slots(self) -> None:
        """Free the cells that idle slots keep for prompts with the same beginning."""
        for slot in self._slots:
            if slot.generation is None and slot.tokens:
                self.clear_slot(slot)

    def clear(self) -> None:
        self._context.clear()
        for slot in self._slots:
            slot.set_tokens([])

    def truncate(self, slot: Slot, length: int) -> int:
        """Keep the first ``length`` reusable cells for a new generation; return how many are left.

        None are left when the memory cannot remove a part.
        """
        if self._context.remove_cells(slot.sequence, length):
            slot.set_tokens(slot.reusable_tokens[:length])
        else:
            self.clear_slot(slot)
        return len(slot.tokens)

    def roll_back(self, slot: Slot) -> None:
        """Remove the cells after ``Slot.tokens``: those of a failed batch or a rejected draft."""
        tokens, generation = slot.tokens, slot.generation
        if self._context.remove_cells(slot.sequence, len(tokens)):
            return
        self.clear_slot(slot)
        if generation is not None:
            generation.pending_tokens = tokens + generation.pending_tokens
            if generation.images is not None:
                generation.images.rows_done = 0

    def shift(self, slot: Slot, keep: int, *, length: int) -> None:
        """Make room in a context of ``length`` tokens: drop the older half of the tokens after the first ``keep``."""
        shift = compute_shift(len(slot.tokens), keep, context=length)
        self._context.remove_cells(slot.sequence, shift.start, shift.end)
        self._context.shift_cells(slot.sequence, shift.end, len(slot.tokens), by=-shift.size)
        del slot.tokens[shift.start : shift.end]
        slot.shifted_from = min(shift.start, len(slot.reusable_tokens))

    def find_prefix(self, slot: Slot, prompt: Sequence[int]) -> PrefixSource | None:
        """Return the slot to copy the start of the prompt from: an idle one, or one whose generation began earlier."""
        if not self.can_truncate:
            return None
        earlier = [other for other in self._slots if other.generation is None or other.last_used < slot.last_used]
        return find_prefix_source(slot, prompt, earlier, length=self.length)

    def copy_prefix(self, slot: Slot, source: PrefixSource) -> int:
        """Replace the slot's cells by the source's first ones; return how many cells the slot then has."""
        tokens = source.slot.reusable_tokens[: source.length]
        if self._context.copy_cells(source.slot.sequence, slot.sequence, source.length):
            slot.set_tokens(tokens)
        else:
            self.clear_slot(slot)
        return len(slot.tokens)

    def compact(self) -> None:
        """Move generations into the gaps between the running slots where that pays."""
        for source, target in plan_moves(self._slots):
            if not self._context.copy_cells(source.sequence, target.sequence, len(source.tokens)):
                target.set_tokens([])
                return
            target.tokens, target.generation, target.last_used = source.tokens, source.generation, source.last_used
            target.adapter, target.shifted_from = source.adapter, source.shifted_from
            source.generation = None
            self.clear_slot(source)
