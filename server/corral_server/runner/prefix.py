"""Where the beginning of a prompt comes from when another slot has it: it is copied, not read again.

Many requests begin alike, with one system prompt or one document. Copying a slot's cells costs about as much as reading
one token (measured on a CPU: 4 ms for 1024 cells of a small model, whose tokens take 5 ms each), so a prompt even waits
for a beginning that another one is reading right now: it would be read after that one anyway. What always holds: a
prompt waits only for a generation that began before it, so the first of them all reads, and when that one ends early
the next takes over what it has read and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corral_server.runner.sequence import Generation, Slot, common_prefix

_LEAST = 16
"""Tokens that a copy must spare."""
_CELLS_PER_TOKEN = 128
"""Cells that are copied in the time in which one token is read, at least: a slot's cells are copied all at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """The first ``length`` tokens of a prompt are, or will be, in ``slot``; ``owner`` is reading them there."""

    slot: Slot
    length: int
    owner: Generation | None

    def ready(self, prompt: Sequence[int]) -> bool:
        cells = self.slot.reusable
        return len(cells) >= self.length and tuple(cells[: self.length]) == tuple(prompt[: self.length])

    @property
    def coming(self) -> bool:
        """Whether the owner will have it in its cells; not when it ended, or its window was shifted."""
        if self.owner is None or self.slot.generation is not self.owner:
            return False
        return len(self.slot.cells) < self.length <= len(self.slot.cells) + len(self.owner.pending)


def find_source(slot: Slot, prompt: Sequence[int], slots: Iterable[Slot], *, length: int) -> Source | None:
    """The other slot that spares ``slot`` most of the reading; None when none is worth a copy of ``length`` cells."""
    best: Source | None = None
    had = common_prefix(slot.reusable, prompt)
    least = max(_LEAST, length // _CELLS_PER_TOKEN)
    for other in slots:
        if other is slot:
            continue
        owner = other.generation
        content = other.reusable if owner is None or other.shifted is not None else other.cells + owner.pending
        shared = min(common_prefix(content, prompt), len(prompt) - 1)
        if shared - had >= least and (best is None or shared > best.length):
            best = Source(other, shared, owner)
    return best
