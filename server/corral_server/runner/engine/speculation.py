"""Speculative decoding: draft tokens of the running streams are decoded with them in one step.

Invariants:

- the generated tokens are those of a run without drafts, greedy or sampled: the sampler chooses every token from the
  same logits in the same order. Only rounding may differ, as in any batch of another size.

It pays where the cost of a step is the pass over the weights. Where each token costs (a small model on a CPU) only long
matches pay; see ``prompt_lookup.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from corral_server.runner.engine.prepared_image import text_length
from corral_server.runner.engine.prompt_lookup import PromptLookup
from corral_server.runner.engine.slots import Slot


def propose_drafts(streams: Sequence[Slot], *, max_tokens: int, room: int) -> None:
    """Set each stream's draft for this step: at most ``max_tokens`` for one stream and ``room`` for all.

    llama.cpp decodes as many tokens of each sequence together as all sequences of the batch have
    (``llama_batch_allocr::split_equal``), so the drafts of a step have one length. There are no drafts when most
    streams have none: the streams without one would need a pass of their own.
    """
    drafts = {slot: _draft(slot, max_tokens) for slot in streams}
    found = [slot for slot, draft in drafts.items() if draft]
    if not found or len(found) * 2 < len(streams):
        return
    length = min(room // len(found), *(len(drafts[slot]) for slot in found))
    for slot in found:
        if slot.generation is not None:
            slot.generation.draft_tokens = drafts[slot][:length]


def _draft(slot: Slot, max_tokens: int) -> list[int]:
    generation = slot.generation
    if generation is None:
        return []
    generation.draft_tokens = []
    if generation.lookup is None:
        generation.lookup = PromptLookup(max_tokens)
        generation.lookup.extend((*generation.prompt, *generation.generated_tokens))
    room = generation.context_length - len(slot.tokens) - generation.extra_cells
    left = min(generation.max_tokens - len(generation.generated_tokens), room) - 1
    draft = generation.lookup.draft()[: max(0, left)]
    return draft if generation.images is None else draft[: text_length(draft)]
