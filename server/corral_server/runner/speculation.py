"""Speculative decoding by look-up: a text that repeats itself goes on as it did before, so several tokens are decoded
in one step and those are kept that the sampler picks as well.

What always holds: the tokens are those that would have come without it, greedy or sampled, for the sampler chooses
every one of them from the same logits in the same order; only their rounding may differ, as in any other batch. It pays
where a step's cost is the pass over the weights; where each token costs (a small model on a CPU) only long matches pay,
so a generation whose drafts are refused is left alone for a while.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.sequence import Slot

_LONG, _SHORT = 4, 3
"""Tokens at the end that must have occurred before."""
_FIRST_PAUSE, _LONGEST_PAUSE = 4, 64


class Lookup:
    """Drafts for one generation from its own prompt and text. ``most`` tokens at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._length = most
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        """Where the text went on after these tokens, the last time before now."""
        self._next_pause = _FIRST_PAUSE
        self._pause_until = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """Takes the newest tokens of prompt and text."""
        for token in tokens:
            end = len(self._tokens)
            for size in (_LONG, _SHORT):
                if end >= size:
                    self._after[tuple(self._tokens[end - size : end])] = end
            self._tokens.append(token)

    def draft(self) -> list[int]:
        """How the text may go on; empty when it never said the like, or when that was wrong lately."""
        if len(self._tokens) < self._pause_until:
            return []
        for size in (_LONG, _SHORT):
            at = self._after.get(tuple(self._tokens[-size:]))
            if at is not None:
                return self._tokens[at : at + self._length]
        return []

    def note(self, drafted: int, accepted: int) -> None:
        """What became of the last draft: two thirds must be right to be worth their decoding."""
        if accepted * 3 >= drafted * 2:
            self._length = min(self._most, self._length * 2)
            self._next_pause = _FIRST_PAUSE
            return
        self._length = max(2, self._length // 2)
        self._pause_until = len(self._tokens) + self._next_pause
        self._next_pause = min(_LONGEST_PAUSE, self._next_pause * 2)


def propose(streams: Sequence[Slot], *, most: int, room: int, length: int) -> None:
    """Gives each stream's generation its draft for this step: ``room`` tokens in all, ``length`` is a slot's window.

    llama.cpp decodes as many tokens of each sequence together as all of them have, so the drafts of a step are equally
    long, and there are none when most streams have none: the rest is a pass of its own.
    """
    drafts = {slot: _draft(slot, most, length) for slot in streams}
    found = [slot for slot, draft in drafts.items() if draft]
    if not found or len(found) * 2 < len(streams):
        return
    even = min(room // len(found), *(len(drafts[slot]) for slot in found))
    for slot in found:
        if slot.generation is not None:
            slot.generation.draft = drafts[slot][:even]


def _draft(slot: Slot, most: int, length: int) -> list[int]:
    generation = slot.generation
    if generation is None:
        return []
    generation.draft = []
    if generation.lookup is None:
        generation.lookup = Lookup(most)
        generation.lookup.extend((*generation.prompt, *generation.generated))
    left = min(generation.limit - len(generation.generated), length - len(slot.cells)) - 1
    return generation.lookup.draft()[: max(0, left)]
