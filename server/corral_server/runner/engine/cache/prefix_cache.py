"""Prefix cache: which slot a prompt goes to, and which other slot its beginning is copied from.

Many requests begin with the same system prompt or document. Copying the cells of a slot costs about as much as
computing one token (measured on a CPU: 4 ms for 1024 cells of a small model, whose tokens take 5 ms each), so a prompt
even waits for a prefix that another generation is computing: the prompt's own prefill would come after that one anyway.

Invariants:

- a prefix is copied only from cells that were computed with the same adapter;
- a prompt waits only for a generation that began earlier, so the first one always computes; when it ends early, the
  next one takes over the cells and continues.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from corral_server.runner.engine.slots import PrefixSource, Slot, common_prefix

_MIN_TOKENS = 16
"""Tokens that a copy must save."""
_CELLS_PER_TOKEN = 128
"""Cells that are copied in the time of computing one token, at least; a copy is always of all cells of a slot."""


def find_prefix_source(slot: Slot, prompt: Sequence[int], slots: Iterable[Slot], *, length: int) -> PrefixSource | None:
    """Return the other slot of the same adapter that saves the most prefill.

    None when the saving is not worth a copy of ``length`` cells.
    """
    best: PrefixSource | None = None
    own = common_prefix(slot.reusable_tokens, prompt)
    minimum = max(_MIN_TOKENS, length // _CELLS_PER_TOKEN)
    for other in slots:
        if other is slot or other.adapter != slot.adapter:
            continue
        owner = other.generation
        if owner is None or other.shifted_from is not None:
            content = other.reusable_tokens
        else:
            content = other.tokens + owner.pending_tokens
        shared = min(common_prefix(content, prompt), len(prompt) - 1)
        if shared - own >= minimum and (best is None or shared > best.length):
            best = PrefixSource(other, shared, owner, other.adapter)
    return best


def choose_slot(
    idle: Sequence[Slot], prompt: Sequence[int], *, running: Collection[int] = (), adapter: str = ""
) -> tuple[Slot, int]:
    """Return the idle slot for a prompt and how many tokens of the prompt it holds.

    The slot that holds most of the prompt wins, unless less than half of its tokens match: such a slot keeps its cells
    for the conversation that they belong to, and the match is copied. Then the order is: an empty slot, a slot beside
    the ``running`` sequences (see ``count_passes``), the least recently used one.
    """
    best, shared = max(((slot, slot.shared_prefix(prompt, adapter)) for slot in idle), key=lambda found: found[1])
    if shared * 2 > len(best.tokens):
        return best, shared
    chosen = min(idle, key=lambda slot: (bool(slot.tokens), count_passes({*running, slot.sequence}), slot.last_used))
    return chosen, chosen.shared_prefix(prompt, adapter)


def count_passes(sequences: Collection[int]) -> int:
    """Return the number of runs of consecutive numbers.

    llama.cpp decodes only sequences with consecutive numbers together (``llama_batch_allocr::split_equal`` with
    ``sequential``), so each run costs a pass over the weights in every step.
    """
    return sum(1 for sequence in sequences if sequence - 1 not in sequences)
